"""`GET /drift`, through the guard: where anomalies are scored, and nowhere else."""

from __future__ import annotations

import json

import pytest

from services.dataplane import DataPlane
from services.inference.scorer import Scorer
from services.protocol.gateway import DRIFT
from tests.services.protocol.gateway.asgi import Client, never
from tests.services.scorers import CLASSES


async def test_every_scorer_is_told_of(scorers: DataPlane) -> None:
    client = Client(scorers, never)
    changed = scorers.select(Scorer, "score", "tiny-scorer").model
    changed.drift.see([1 / 401] * 90 + [0.7] * 10, [0] * 100)
    answer = await client.ask(DRIFT, "GET")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    models = {model["name"]: model for model in json.loads(answer.body)["models"]}
    assert set(models) == {"few", "plain", "tiny-scorer"}
    told, quiet = models["tiny-scorer"], models["plain"]
    assert told["digest"] == changed.bundle.digest
    assert (told["images"], told["alarm"], told["alarm_at_image"]) == (100, True, 64)
    assert told["evidence_log10"].keys() == {"p_value", "class"}
    assert max(told["evidence_log10"].values()) > 8
    assert told["p_values"][0]["at_most"] == pytest.approx(0.01, abs=1e-4)
    assert told["p_values"][0]["observed"] == 0.9
    assert [each["label"] for each in told["classes"]] == list(CLASSES)
    assert [each["observed"] for each in told["classes"]] == [1, 0, 0]
    assert all(each["no_alarm_for"][0] < each["expected"] < each["no_alarm_for"][1] for each in told["classes"])
    assert (quiet["images"], quiet["alarm"], quiet["alarm_at_image"], quiet["classes"]) == (0, False, None, None)
    assert quiet["p_values"][0]["observed"] is None


async def test_it_takes_get_and_head_only_and_only_when_ready(scorers: DataPlane) -> None:
    client = Client(scorers, never)
    assert (await client.ask(DRIFT, "POST")).headers["allow"] == "GET, HEAD"
    scorers.problems = ["no bundle"]
    assert (await client.ask(DRIFT, "GET")).status == 503


async def test_a_service_without_scorers_has_no_such_route(empty_store: object) -> None:
    plane = DataPlane(["generation"])
    plane.problems = []
    answer = await Client(plane, never).ask(DRIFT, "GET")
    assert answer.status == 404
    assert DRIFT not in answer.problem["detail"].partition("the routes are ")[2]
