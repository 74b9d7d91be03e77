"""A conditional VAE from the command line to the answer: trained, judged, stored, served."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.inference import bundle
from tests.conftest import ROOT, clean_environment
from training.data import load
from training.evaluation.generators.likelihood import density
from training.metrics.likelihood import log_marginal

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def home(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo's models and a conditional VAE of the digits, which was judged by the demo's CNN."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(model_store / "models", home / "models", symlinks=True)
    # Of the seeds 0 to 2 this one meets the gate of accuracy with half the channels.
    command = [sys.executable, "-m", "tests.brief", "train", "--dataset", "digits", "--recipe", "reference"]
    run = subprocess.run(
        [*command, "--network", "cvae", "--seed", "2", "--judge", "digits-cnn", "--out", str(home / "runs")],
        env=clean_environment(BENTOML_HOME=str(home)),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "stored digits-cvae:" in run.stdout
    assert "stored digits-bayes:" in run.stdout
    return home


@pytest.fixture(scope="module")
def url(serve: Any, home: Path) -> Iterator[str]:
    with serve("allinone", home=home) as server:
        yield server.url


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """One test image of each class, and their classes."""
    test = load("digits").test
    assert test.labels is not None
    rows = [int(np.flatnonzero(test.labels == label)[0]) for label in range(10)]
    return test.images[rows], test.labels[rows]


def ask(url: str, route: str, **fields: Any) -> Any:
    drawn = {} if route == "/classify" else {"format": "array"}
    response = httpx.post(url + route, json={**drawn, **fields}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_card_names_the_judge_and_the_command(home: Path) -> None:
    [card] = home.glob("models/digits-cvae/*/card.md")
    text = card.read_text()
    assert re.search(r"Judge of the samples: digits-cnn:[0-9a-f]{12}, digest `[0-9a-f]{64}`", text)
    assert "duet train --dataset digits --recipe reference --network cvae --seed 2" in text
    assert {path.name for path in card.parent.glob("*.png")} >= {"counterfactuals.png", "walks.png", "samples.png"}


def test_every_image_is_drawn_as_every_class_and_taken_for_it(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, _ = digits
    answer = ask(url, "/redraw", images=images[:, 0].tolist(), model="digits-cvae")
    assert answer["labels"] == [str(i) for i in range(10)] * 10
    predictions = httpx.post(
        f"{url}/classify", json={"images": answer["images"], "model": "digits-cnn"}, timeout=60
    ).json()["predictions"]
    right = [prediction["label"] == label for prediction, label in zip(predictions, answer["labels"], strict=True)]
    assert np.mean(right) > 0.5  # 0.1 by chance; trained for half a minute


def test_one_class_is_a_row_of_all(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    given = digits[0][:, 0].tolist()
    every = ask(url, "/redraw", images=given)
    fours = ask(url, "/redraw", images=given, **{"class": "4"})
    assert fours["labels"] == ["4"] * 10
    assert fours["images"] == every["images"][4::10]


def test_a_grid_has_the_image_before_its_redrawings(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    response = httpx.post(f"{url}/redraw", json={"images": digits[0][:2, 0].tolist(), "format": "grid"}, timeout=60)
    assert response.headers["content-type"] == "image/png"


def test_reconstruction_finds_the_class_or_takes_it(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    found = ask(url, "/reconstruct", images=images[:, 0].tolist(), model="digits-cvae")
    assert np.mean([label == str(true) for label, true in zip(found["labels"], labels, strict=True)]) >= 0.9
    for i in (2, 5):
        told = ask(url, "/reconstruct", images=images[i : i + 1, 0].tolist(), **{"class": found["labels"][i]})
        assert told["images"][0] == found["images"][i]
        wrong = ask(url, "/reconstruct", images=images[i : i + 1, 0].tolist(), **{"class": str((i + 1) % 10)})
        assert wrong["errors"][0] > found["errors"][i]


def test_bayes_rule_is_a_second_opinion_beside_the_cnn(url: str) -> None:
    test = load("digits").test
    assert test.labels is not None
    images = test.images[:200]
    rows = [
        httpx.post(f"{url}/classify", json={"images": images[:, 0].tolist(), "model": model}, timeout=60).json()
        for model in ("digits-bayes", "digits-cnn")
    ]
    bayes, cnn = (np.array([one["index"] for one in answer["predictions"]]) for answer in rows)
    assert (bayes == test.labels[:200]).mean() > 0.93
    assert (bayes == cnn).mean() > 0.93


def v2(url: str, model: str, images: np.ndarray, *outputs: str) -> httpx.Response:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    body = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}
    return httpx.post(f"{url}/v2/models/{model}/infer", json=body, timeout=60)


def test_log_joint_is_the_evaluators_bound(url: str, home: Path) -> None:
    images = load("digits").test.images[:100]
    answer = ask(url, "/classify", images=images[:, 0].tolist(), model="digits-bayes", log_joint=True, top_k=10)
    bound, predictions = answer["log_joint"], answer["predictions"]
    assert bound["bound"] == "importance-weighted, 16 draws of z"
    assert bound["prior"].startswith("p(z|y)")
    assert bound["likelihood"] == "logistic"
    served = np.array([list(one["log_joint"].values()) for one in predictions])
    assert all(list(one["log_joint"]) == [str(i) for i in range(10)] for one in predictions)
    evidence = np.array([one["log_evidence"] for one in predictions])
    np.testing.assert_allclose(np.logaddexp.reduce(served, axis=1), evidence)
    [path] = home.glob("models/digits-cvae/*/manifest.json")
    exact = density(bundle.load(path.parent)).bounds(images, 300, seed=5)
    difference = evidence - log_marginal(exact)
    # The error was measured on other images, with another seed: their root mean squares agree within a third.
    assert 0 < np.sqrt(np.square(difference).mean()) < 1.33 * bound["error"]
    likely = exact - np.log(10)
    rows = np.arange(len(images)), exact.argmax(axis=1)
    assert np.sqrt(np.square(served[rows] - likely[rows]).mean()) < 1.33 * bound["error"]
    assert (served.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95


def test_log_joint_changes_no_other_figure_and_is_the_same_by_v2(url: str) -> None:
    images = load("digits").test.images[:5]
    asked = {"images": images[:, 0].tolist(), "model": "digits-bayes", "top_k": 10}
    with_it, without = ask(url, "/classify", log_joint=True, **asked), ask(url, "/classify", **asked)
    served = [list(one.pop("log_joint").values()) for one in with_it["predictions"]]
    for one in with_it["predictions"]:
        del one["log_evidence"]
    assert with_it["predictions"] == without["predictions"]
    [output] = v2(url, "digits-bayes", images, "log_joint").json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [5, 10])
    assert np.array_equal(np.float32(served).ravel(), np.float32(output["data"]))


def test_a_discriminative_classifier_has_no_joint(url: str) -> None:
    images = load("digits").test.images[:1]
    body = {"images": images[:, 0].tolist(), "log_joint": True}
    refused = httpx.post(f"{url}/classify", json={**body, "model": "digits-cnn"}, timeout=60)
    assert (refused.status_code, refused.json()["field"]) == (422, "log_joint")
    assert "digits-cnn is discriminative and knows p(y|x) only" in refused.json()["detail"]
    assert "digits-bayes" in refused.json()["detail"]
    refused = v2(url, "digits-cnn", images, "log_joint")
    assert (refused.status_code, refused.json()["field"]) == (422, "outputs[0].name")
    assert "p(y|x) only" in refused.json()["error"]
    # Without a name the one that can answers, though another model is the default.
    assert ask(url, "/classify", **body)["model"]["name"] == "digits-bayes"
    refused = httpx.post(f"{url}/classify", json={**body, "explanation": "class_activation"}, timeout=60)
    assert (refused.status_code, refused.json()["field"]) == (404, "model")  # digits-bayes has no such map


def test_v2_redraws_and_wants_the_class(url: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = digits[0][:3]
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    infer = f"{url}/v2/models/digits-cvae/infer"
    missing = httpx.post(infer, json={"inputs": [tensor]}, timeout=60)
    assert missing.status_code == 422
    assert missing.json()["field"] == "inputs.labels"
    labels = {"name": "labels", "datatype": "INT64", "shape": [1], "data": [4]}
    answer = httpx.post(infer, json={"inputs": [tensor, labels]}, timeout=60).json()
    [drawn] = [output for output in answer["outputs"] if output["name"] == "images"]
    native = ask(url, "/redraw", images=images[:, 0].tolist(), **{"class": 4})
    assert np.array(drawn["data"]).reshape(drawn["shape"])[:, 0].tolist() == native["images"]


@pytest.mark.parametrize(
    ("route", "fields", "field"),
    [
        ("/redraw", {"class": "ten"}, "class"),
        ("/redraw", {"class": 10}, "class"),
        ("/redraw", {"format": "bmp"}, "format"),
        ("/reconstruct", {"class": "ten"}, "class"),
    ],
)
def test_bad_requests_name_the_field(url: str, route: str, fields: dict[str, Any], field: str) -> None:
    body = {"images": [[[0] * 28] * 28], "model": "digits-cvae", **fields}
    response = httpx.post(url + route, json=body, timeout=60)
    assert (response.status_code, response.json()["field"]) == (422, field)


@pytest.mark.parametrize("route", ["/redraw", "/reconstruct"])  # both decode every image as every class
def test_too_many_drawings_are_refused(url: str, route: str) -> None:
    body = {"images": [[[0] * 28] * 28] * 26, "model": "digits-cvae"}
    response = httpx.post(url + route, json=body, timeout=60)
    assert response.status_code == 413
    assert "images times classes: 260 items" in response.json()["detail"]
