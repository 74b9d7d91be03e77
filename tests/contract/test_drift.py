"""A real service says when its images change, by whom and why, and when they are as before; anomalies are let pass."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from services.inference import registry
from tests.conftest import Server
from tests.services.scorers import CLASSES, SHARES, scorer_bundle

pytestmark = [pytest.mark.server, pytest.mark.slow]

PART = 200  # images a request
SLICE = 0.05  # seconds
PATIENCE = 200_000  # images


@dataclass
class Service:
    server: Server
    client: httpx.Client
    random: np.random.Generator

    def send(self, share: float, name: str | bytes) -> None:
        """Images of a client, of which a share is lighter than any calibration image."""
        random = self.random
        level = np.where(random.random(PART) < share, random.uniform(205, 250, PART), random.uniform(0, 200, PART))
        pixels = np.floor(level[:, None] + random.random((PART, 16)))  # the mean is the level, and each is another
        # The class is that of the brightest of the first three.
        pixels[:, :3] = np.floor(level)[:, None]
        pixels[np.arange(PART), random.choice(3, PART, p=SHARES)] += 1
        tensor = {"name": "images", "datatype": "UINT8", "shape": [PART, 1, 4, 4]}
        body = {"inputs": [tensor | {"data": pixels.astype(int).ravel().tolist()}]}
        answer = self.client.post("/v2/models/tiny-scorer/infer", json=body, headers={"X-Client": name})
        assert answer.status_code == 200, answer.text

    def told(self) -> dict[str, Any]:
        [model] = self.client.get("/drift").json()["models"]
        return dict(model)

    def metric(self, name: str, **labels: str) -> float:
        of = "".join(f'{label}="{value}",' for label, value in sorted(labels.items()))
        found = re.findall(rf'^{name}{{{of}model="tiny-scorer",version="\w+"}} (\S+)$', self.metrics(), re.MULTILINE)
        return float(found[0])

    def metrics(self) -> str:
        return self.client.get("/metrics").text

    def log(self) -> list[str]:
        return [line for line in self.server.log.read_text().splitlines() if "[duet.drift]" in line]


@pytest.fixture(scope="module")
def service(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    BentoMLContainer.model_store.set(ModelStore(home / "models"))
    registry.store(scorer_bundle(home / "bundle", size=5000))
    BentoMLContainer.model_store.reset()
    settings = {"DUET_DRIFT_SLICE_SECONDS": str(SLICE), "DUET_CLIENT_HEADER": "X-Client"}
    with (
        serve("anomaly", home=home, **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield Service(server, client, np.random.default_rng(0))


def test_anomalies_are_let_pass_a_change_is_told_and_its_end_too(service: Service) -> None:
    quiet = service.told()
    while quiet["images"] < 50_000 or quiet["slices"] <= 20:  # a fast machine needs few slices for so many images
        service.send(0.02, "camera-1")
        service.send(0.02, "camera-2")
        quiet = service.told()
    assert quiet["images"] >= 50_000
    assert quiet["slices"] > 20
    assert (quiet["alarm"], quiet["alarms"]) == (False, [])
    assert service.metric("duet_drift_alarm") == 0
    assert service.log() == []

    while not service.told()["alarm"]:  # the second camera turns
        service.send(0.02, "camera-1")
        service.send(1.0, "camera-2")
        assert service.told()["images"] < PATIENCE
    loud = service.told()
    [alarm] = loud["alarms"]
    assert alarm["ended"] is None
    assert alarm["clients"] == ["camera-2"]
    assert alarm["slices"] >= 8
    cause = alarm["cause"]
    assert cause["observed"] > cause["no_alarm_for"][1] > 0.02
    assert {stream["name"]: stream["strange"] for stream in loud["clients"]} == {
        "camera-1": False,
        "camera-2": True,
        "*": False,
    }
    assert service.metric("duet_drift_alarm") == 1
    assert service.metric("duet_drift_repeats") < 0.1
    assert 0 <= service.metric("duet_drift_evidence", kind="rate") < 8
    [line] = service.log()
    assert "drift: alarm: the images sent to tiny-scorer are no longer like its calibration images: " in line
    assert f"{cause['observed']:.2%} observed" in line
    assert line.endswith("; clients: camera-2")

    ends = loud["alarm_ends_in_slices"]
    assert ends >= 128 - 10
    while service.told()["alarm"]:
        service.send(0.02, "camera-1")
        service.send(0.02, "camera-2")
        assert service.told()["images"] < 2 * PATIENCE
    after = service.told()
    [ended] = after["alarms"]
    assert ended | {"ended": None} == alarm
    assert ended["ended"] >= ended["raised"]
    assert after["slices"] >= loud["slices"] + 128 - 10
    assert service.metric("duet_drift_alarm") == 0
    assert len(service.log()) == 2
    assert "has ended" in service.log()[1]


@pytest.mark.parametrize("name", [b"x" * 10_240, "é".encode(), b"\xff\xfe"])
def test_a_header_that_is_no_name_counts_with_the_rest_and_is_no_label(service: Service, name: bytes) -> None:
    before = service.told()["images"]
    service.send(0.02, name)
    time.sleep(2 * SLICE)
    told = service.told()
    assert told["images"] == before + PART
    assert {stream["name"] for stream in told["clients"]} <= {"camera-1", "camera-2", "*"}
    assert "xxxx" not in service.metrics()
    assert "camera" not in service.metrics()
    assert "\xe9" not in service.metrics()


def test_an_image_that_a_client_sends_again_does_not_vote_again(service: Service) -> None:
    time.sleep(2 * SLICE)
    before = service.told()
    body = {"images": [[[7] * 4] * 4] * 200}
    for _ in range(3):  # the second and third time from the cache
        assert service.client.post("/score", json=body, headers={"X-Client": "camera-1"}).status_code == 200
    time.sleep(2 * SLICE)
    after = service.told()
    assert after["images"] == before["images"] + 600
    assert after["slices"] <= before["slices"] + 1
    assert after["repeats"] > before["repeats"]
    assert [each["label"] for each in after["classes"]] == list(CLASSES)
