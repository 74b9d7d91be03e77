"""The anomaly service with a scorer that has every output: real requests, its metrics and that it watches for drift."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from services.inference import registry
from tests.contract.questions import png
from tests.services.scorers import CLASSES, scorer_bundle, shade

pytestmark = pytest.mark.server

JUDGED = [(policy, per_class) for policy in ("p-value", "pac", "fdr") for per_class in (False, True)]


@pytest.fixture(scope="module")
def client(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    BentoMLContainer.model_store.set(ModelStore(home / "models"))
    registry.store(scorer_bundle(home / "bundle"))
    BentoMLContainer.model_store.reset()
    with serve("anomaly", home=home) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def infer(client: httpx.Client, images: np.ndarray, **parameters: Any) -> dict[str, list[Any]]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    body = {"inputs": [tensor], "parameters": parameters}
    response = client.post("/v2/models/tiny-scorer/infer", json=body)
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


@pytest.mark.parametrize(("policy", "per_class"), [*JUDGED, ("top-fraction", False)])
def test_both_protocols_judge_alike(client: httpx.Client, policy: str, per_class: bool) -> None:
    images = np.concatenate([shade(*range(100, 250, 5), label=label) for label in range(3)])
    wish = {"alpha": 0.04, "policy": policy, "per_class": per_class}
    answer = client.post("/score", json={"images": images[:, 0].tolist(), **wish})
    assert answer.status_code == 200, answer.text
    native = [score["anomalous"] for score in answer.json()["scores"]]
    assert infer(client, images, **wish)["anomalous"] == native
    assert any(native)
    assert not all(native)


def test_a_form_asks_for_the_same(client: httpx.Client) -> None:
    images = shade(10, 220)
    wish = {"policy": "top-fraction", "alpha": 0.5, "regions": True, "look_alike": True, "statistics": True}
    files = [("images", (f"{i}.png", png(image), "image/png")) for i, image in enumerate(images)]
    form = client.post("/score", files=files, data={name: json.dumps(value) for name, value in wish.items()})
    plain = client.post("/score", json={"images": images[:, 0].tolist(), **wish})
    assert form.status_code == 200, form.text
    assert form.json() == plain.json()
    assert [score["anomalous"] for score in form.json()["scores"]] == [False, True]
    assert form.json()["scores"][1]["regions"] == [{"box": [0, 0, 4, 4], "peak": pytest.approx(2.21), "area": 16}]


def test_drift_is_told_by_a_route_and_by_metrics(client: httpx.Client) -> None:
    def told() -> dict[str, Any]:
        [model] = client.get("/drift").json()["models"]
        return dict(model)

    before = told()["images"]
    for _ in range(3):  # the second and third time from the cache
        infer(client, shade(*[250] * 64, label=2))
    after = told()
    assert after["images"] == before + 192
    assert after["repeats"] >= 191 / after["images"]
    assert (after["tolerated"], after["slice_seconds"], after["alarm"]) == (0.02, 10, False)
    assert [each["label"] for each in after["classes"]] == list(CLASSES)
    metrics = client.get("/metrics").text
    of = f'model="tiny-scorer",version="{after["version"]}"'
    assert f"duet_drift_alarm{{{of}}} 0.0" in metrics
    assert f'duet_drift_evidence{{kind="class",{of}}} ' in metrics
    assert f"duet_drift_repeats{{{of}}} " in metrics


def test_samples_that_are_judged_are_no_images_that_came(allinone_url: str) -> None:
    with httpx.Client(base_url=allinone_url, timeout=60) as client:

        def seen() -> int:
            [scorer] = client.get("/drift").json()["models"]
            return int(scorer["images"])

        before = seen()
        drawn = client.post("/generate", json={"count": 4, "quality": True, "model": "digits-gan"}).json()
        assert len([quality["p_value"] for quality in drawn["quality"]]) == 4
        assert seen() == before
        assert client.post("/score", json={"images": drawn["images"]}).status_code == 200
        assert seen() == before + 4


def test_drift_is_documented_where_it_is_missing(client: httpx.Client) -> None:
    assert "/drift" in client.get("/nowhere").json()["detail"]
    assert client.post("/drift").headers["allow"] == "GET, HEAD"
