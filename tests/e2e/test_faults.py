"""Damage, and what Duet says and does about it: models, deadlines. Redis has a file of its own."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE = 60


@pytest.fixture
def damaged(model_store: Path, tmp_path: Path) -> Path:
    """A copy of the model store where one byte of the classifier's graph is another; its home."""
    shutil.copytree(model_store / "models", tmp_path / "models")
    [graph] = tmp_path.glob("models/digits-cnn/*/classify.onnx")
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(raw)
    return tmp_path


def test_a_flipped_byte_in_a_model_stops_readiness_and_names_the_file(serve: Any, damaged: Path) -> None:
    with serve("allinone", home=damaged, ready=False) as server, httpx.Client(base_url=server.url) as client:
        # It answers before it has looked at the models.
        detail = "starting"
        while detail.startswith("starting"):
            probe = client.get("/readyz")
            detail = probe.json()["detail"]
            started = client.get("/startupz").status_code
        assert probe.status_code == 503
        assert started == client.get("/livez").status_code == 200
        assert "classify.onnx" in detail
        assert "digits-cnn" in detail
        routes = {
            "/classify": {"images": [[[0] * 28] * 28]},
            "/generate": {"count": 1},
            "/v2/models/digits-cnn/infer": {},
            "/v2/models/digits-vae/infer": {"parameters": {"seed": 1}},
        }
        for route, body in routes.items():
            answer = client.post(route, json=body)
            if route == "/classify" or "cnn" in route:
                assert (answer.status_code, answer.json()["detail"]) == (503, detail)
                assert answer.headers["retry-after"] == "1"
            else:  # models that verify are served
                assert answer.status_code == 200, answer.text
        assert client.get("/v2/models/digits-vae/ready").json()["ready"] is True
        assert client.get("/v2/models/digits-cnn/ready").status_code == 503
        states = {entry["name"]: entry["state"] for entry in client.post("/v2/repository/index").json()}
        assert states == {"digits-cnn": "UNAVAILABLE"} | dict.fromkeys(
            ("digits-vae", "digits-gan", "digits-scorer"), "READY"
        )
        assert client.get("/models/digits-cnn").status_code == 503
        assert client.get("/models/digits-vae/files/card.md").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.get("/v2/health/live").status_code == 200
        assert "duet_ready 0.0" in client.get("/metrics").text
        assert "classify.onnx" in server.log.read_text()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"count": 256, "seed": 7}),
        ("/v2/models/digits-vae/infer", {"parameters": {"count": 256, "seed": 7}}),
    ],
)
def test_a_slow_request_with_a_deadline_of_a_millisecond_is_504(allinone_url: str, path: str, body: Any) -> None:
    answer = httpx.post(allinone_url + path, json=body, headers={"X-Request-Timeout-Ms": "1"}, timeout=PATIENCE)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:duet:problem:deadline-exceeded"
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_no_request_is_answered_after_its_deadline(allinone_url: str) -> None:
    """By the server's own account of its stages, which begin after the deadline was set."""
    statuses, late = Counter[int](), []
    body = {"parameters": {"seed": 7, "count": 128}}
    with httpx.Client(base_url=allinone_url, timeout=PATIENCE) as client:
        for deadline_ms in np.geomspace(1, 1000, 200):
            headers = {"X-Request-Timeout-Ms": f"{deadline_ms}", "Cache-Control": "no-store"}
            answer = client.post("/v2/models/digits-gan/infer", json=body, headers=headers)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                stages = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
                spent = {name: float(milliseconds) for name, milliseconds in stages}
                if spent["parse"] + spent["queue"] + spent["compute"] > deadline_ms:
                    late.append((deadline_ms, spent))
    assert late == []
    assert set(statuses) == {200, 504}
