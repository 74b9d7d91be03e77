"""`GET /drift`, through the guard: where anomalies are scored, and nowhere else."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from services.dataplane import DataPlane
from services.inference.scorer import Scorer
from services.protocol.gateway import DRIFT
from tests.services.protocol.gateway.asgi import Client, never
from tests.services.scorers import CLASSES

DOCS = Path(__file__).parents[3] / "docs"


async def test_every_scorer_is_told_of(scorers: DataPlane) -> None:
    client = Client(scorers, never)
    changed = scorers.select(Scorer, "score", "tiny-scorer").model
    begin = time.time() - 1000
    for number in range(20):
        marks = range(10 * number, 10 * number + 10)
        changed.drift.see([1 / 401] * 9 + [0.7], [0] * 10, marks, begin + 10 * number, b"camera-7")
    changed.drift.see([0.5] * 4, [1] * 4, [1, 2, 3, 3], begin + 200, b"camera-8")
    answer = await client.ask(DRIFT, "GET")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    models = {model["name"]: model for model in json.loads(answer.body)["models"]}
    assert set(models) == {"few", "plain", "tiny-scorer"}
    told, quiet = models["tiny-scorer"], models["plain"]
    assert told["digest"] == changed.bundle.digest
    assert (told["images"], told["slices"], told["repeats"]) == (204, 21, 1 / 204)
    assert (told["tolerated"], told["slice_seconds"]) == (0.02, 10)
    assert told["alarm"] is True
    assert told["evidence_log10"].keys() == {"rate", "class"}
    assert told["p_values"][0]["at_most"] == pytest.approx(0.01, abs=1e-4)
    assert told["p_values"][0]["observed"] == pytest.approx(0.9 * 20 / 21)
    assert [each["label"] for each in told["classes"]] == list(CLASSES)
    assert [each["observed"] for each in told["classes"]] == pytest.approx([20 / 21, 1 / 21, 0])
    assert all(each["no_alarm_for"][0] < each["expected"] < each["no_alarm_for"][1] for each in told["classes"])
    [alarm] = told["alarms"]
    assert alarm["ended"] is None
    assert begin < time.mktime(time.strptime(alarm["raised"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone < time.time()
    assert alarm["cause"]["kind"] == "rate"
    assert alarm["cause"]["at_most"] == told["p_values"][0]["at_most"]
    assert alarm["cause"]["observed"] == pytest.approx(0.9)
    assert alarm["cause"]["no_alarm_for"] == told["p_values"][0]["no_alarm_for"]
    assert alarm["clients"] == ["camera-7"]
    assert 100 < told["alarm_ends_in_slices"] <= 128
    streams = {stream["name"]: stream for stream in told["clients"]}
    assert {name: stream["strange"] for name, stream in streams.items()} == {
        "camera-7": True,
        "camera-8": False,
        "*": False,
    }
    assert (quiet["images"], quiet["alarm"], quiet["alarms"], quiet["classes"]) == (0, False, [], None)
    assert (quiet["clients"], quiet["alarm_ends_in_slices"], quiet["repeats"]) == ([], None, 0)
    assert quiet["p_values"][0]["observed"] is None


def keys(value: Any, place: str = "") -> set[str]:
    """The names of all members of a JSON document, by their places; lists have one kind of element."""
    if isinstance(value, list):
        return set().union(*(keys(each, f"{place}[]") for each in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{place}.{name}"} | keys(each, f"{place}.{name}") for name, each in value.items()))


async def test_the_page_that_explains_the_answer_shows_all_of_it(scorers: DataPlane) -> None:
    drift = scorers.select(Scorer, "score", "tiny-scorer").model.drift
    for number in range(20):
        drift.see([1 / 401] * 2, [0] * 2, range(2 * number, 2 * number + 2), 10.0 * number, b"camera-2")
    told = json.loads((await Client(scorers, never).ask(DRIFT, "GET")).body)
    told["models"] = [model for model in told["models"] if model["name"] == "tiny-scorer"]
    [example] = re.findall(r"```json\n(.*?)```", (DOCS / "explanation" / "drift.md").read_text(), re.DOTALL)
    assert keys(json.loads(example)) == keys(told) - {".models[].version", ".models[].digest"}
    table = (DOCS / "reference" / "fields.md").read_text().split("\n## Drift\n")[1]
    names = {place.rpartition(".")[2] for place in keys(told)}
    missing = {name for name in names if not re.search(rf"[`.]{name}(\[\])?`", table)}
    assert missing == {"version", "digest"}  # as in every answer


async def test_a_change_of_classes_names_the_class(scorers: DataPlane) -> None:
    changed = scorers.select(Scorer, "score", "tiny-scorer").model
    for number in range(60):
        p_values = [0.005, *(0.15 * i for i in range(1, 7))] if number % 10 == 0 else [0.15 * i for i in range(1, 7)]
        marks = range(10 * number, 10 * number + len(p_values))
        changed.drift.see(p_values, [2] * len(p_values), marks, 10.0 * number)
    answer = await Client(scorers, never).ask(DRIFT, "GET")
    [told] = [model for model in json.loads(answer.body)["models"] if model["name"] == "tiny-scorer"]
    cause = told["alarms"][-1]["cause"]
    assert cause.keys() == {"kind", "label", "observed", "no_alarm_for"}
    assert (cause["kind"], cause["label"], cause["observed"]) == ("class", "light", 1)


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
