"""Alerts on causes: each fires, stays silent, ends, and survives little traffic, a restart and a missing series."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring.alerts import Alert, groups
from deploy.monitoring.objectives import BOUNDS, read
from deploy.monitoring.rules import rules
from tests.deploy.monitoring.promtool import LABELS, Scenario, counter, gauge, program, surprises

OBJECTIVES = read()
GROUPS = groups(OBJECTIVES[0])
ALERTS = {part.name: part for parts in GROUPS.values() for part in parts if isinstance(part, Alert)}
A, B, C = (f'{LABELS},instance="{name}"' for name in "abc")
OTHER_SERVICE = 'duet_ready{namespace="prod",job="duet-anomaly",instance="x"}'
LONG = 300  # evaluations, more than any scenario has
WELL = {f"duet_ready{{{A}}}": gauge((1, LONG)), f"up{{{A}}}": gauge((1, LONG))}


def scenario(name: str, series: Mapping[str, str], fires: Mapping[float, list[str]], interval: int = 60) -> Scenario:
    return Scenario(name, WELL | series, fires, interval)


def waits(*segments: tuple[float, int], slower_than: float) -> dict[str, str]:
    """Requests a minute that wait up to the bucket after `slower_than`."""
    values = counter(*segments)
    return {
        f'duet_queue_duration_seconds_bucket{{{A},model="m",outcome="served",le="{bound}"}}': values
        if bound == "+Inf" or float(bound) > slower_than
        else f"0x{LONG}"
        for bound in [*BOUNDS, "+Inf"]
    }


def refusals(*segments: tuple[float, float, int]) -> dict[str, str]:
    """Answers and refusals a minute."""
    answered = counter(*[(answers, steps) for answers, _, steps in segments])
    refused = counter(*[(refused, steps) for _, refused, steps in segments])
    count = "duet_request_duration_seconds_count"
    return {
        f'{count}{{{A},route="/score",status="200"}}': answered,
        f'{count}{{{A},route="/score",status="429"}}': refused,
        f'duet_rejections_total{{{A},route="/score",reason="queue-full"}}': refused,
        f'duet_rejections_total{{{A},route="/score",reason="invalid-input"}}': counter((600, LONG)),
    }


def lookups(tier: str, *segments: Mapping[str, float], steps: tuple[int, ...]) -> dict[str, str]:
    """Items looked up in a step, by result."""
    return {
        f'duet_cache_requests_total{{{A},tier="{tier}",result="{result}"}}': counter(
            *[(segment.get(result, 0), count) for segment, count in zip(segments, steps, strict=True)]
        )
        for result in {result for segment in segments for result in segment}
    }


def predictions(*segments: tuple[float, float, int]) -> dict[str, str]:
    """Images of two classes, in a step."""
    first = counter(*[(first, steps) for first, _, steps in segments])
    second = counter(*[(second, steps) for _, second, steps in segments])
    return {
        f'duet_predictions_total{{{A},model="m",label="{label}"}}': text
        for label, text in (("0", first), ("1", second))
    }


def digests(**by_instance: str) -> dict[str, str]:
    """One digest a replica: which one, by the minute."""
    series = {}
    for instance, text in by_instance.items():
        of = f'{LABELS},instance="{instance}"'
        series[f"duet_ready{{{of}}}"] = gauge((1, LONG))
        for digest in set(text.split()) - {"-"}:
            shown = [(1 if digest == now else "stale", 1) for now in text.split()]
            values = " ".join("1" if value == 1 else "_" for value, _ in shown)
            stale = values.replace("1 _", "1 stale", 1)
            series[f'duet_model_info{{{of},model="m",version="{digest}",digest="{digest}",task="t"}}'] = stale
    return series


DAY = 72  # steps of twenty minutes
HIGH, LOW = {"hit": 800.0, "miss": 200.0}, {"hit": 160.0, "miss": 840.0}
RESTART = {"hit": -1.0, "miss": -1.0}

# By alert. What fires and what is silent lie within a factor of ten of each limit, length and floor.
SCENARIOS: dict[str, list[Scenario]] = {
    "DuetQueueWait": [
        scenario(
            "requests wait half a second",
            waits((60, 20), (0, 20), slower_than=0.25),
            {9: [], 13: ["DuetQueueWait/ticket"], 20: ["DuetQueueWait/ticket"], 27: []},
        ),
        scenario("requests wait a quarter of a second", waits((60, 30), slower_than=0.1), {15: [], 30: []}),
        scenario(
            "one request waits long", waits((0, 5), (1, 1), (0, 20), slower_than=5), {8: [], 11: [], 15: [], 25: []}
        ),
        scenario(
            "a restart while requests wait",
            waits((60, 15), (-1, 1), (60, 15), slower_than=0.25),
            {14: ["DuetQueueWait/ticket"], 18: ["DuetQueueWait/ticket"], 30: ["DuetQueueWait/ticket"]},
        ),
    ],
    "DuetRefusals": [
        scenario(
            "a tenth is refused",
            refusals((90, 10, 20), (100, 0, 20)),
            {9: [], 13: ["DuetRefusals/ticket"], 20: ["DuetRefusals/ticket"], 27: []},
        ),
        scenario("a hundredth is refused", refusals((99, 1, 30)), {15: [], 30: []}),
        scenario("one of two is refused", refusals((0, 0, 5), (1, 1, 1), (0, 0, 20)), {8: [], 12: [], 25: []}),
        scenario("a restart", refusals((100, 0, 10), (-1, -1, 1), (100, 0, 15)), {12: [], 25: []}),
    ],
    "DuetEventLoopLag": [
        scenario(
            "a tenth of a second",
            {f"duet_event_loop_lag_seconds{{{A}}}": gauge((0, 10), (0.1, 20), (0, 20))},
            {16: [], 25: ["DuetEventLoopLag/ticket"], 45: []},
        ),
        scenario("ten milliseconds", {f"duet_event_loop_lag_seconds{{{A}}}": gauge((0.01, 40))}, {20: [], 40: []}),
        scenario(
            "one long pause",
            {f"duet_event_loop_lag_seconds{{{A}}}": gauge((0, 10), (1, 1), (0, 3), ("_", 30))},
            {12: [], 14: [], 24: []},
        ),
    ],
    "DuetCacheErrors": [
        scenario(
            "a tenth of the lookups fail",
            lookups(
                "redis",
                {"hit": 45, "miss": 45, "unavailable": 10},
                {"hit": 50, "miss": 50, "unavailable": 0},
                steps=(20, 20),
            ),
            {9: [], 13: ["DuetCacheErrors/ticket"], 20: ["DuetCacheErrors/ticket"], 27: []},
        ),
        scenario(
            "a hundredth is damaged",
            lookups("redis", {"hit": 99, "miss": 1, "corrupt": 1}, steps=(30,)),
            {15: [], 30: []},
        ),
        scenario("memory alone", lookups("memory", {"hit": 1, "miss": 99}, steps=(30,)), {15: [], 30: []}),
        scenario(
            "the only lookup fails",
            lookups("redis", {"unavailable": 0}, {"unavailable": 1}, {"unavailable": 0}, steps=(5, 1, 20)),
            {8: [], 12: [], 25: []},
        ),
        scenario(
            "a restart",
            lookups("redis", HIGH, RESTART, HIGH, steps=(10, 1, 15)),
            {12: [], 25: []},
        ),
    ],
    "DuetRedisBreakerOpen": [
        scenario(
            "Redis is not used",
            {f'duet_cache_redis_breaker{{{A},side="reads"}}': gauge((0, 10), (1, 20), (0, 20))},
            {15: [], 22: ["DuetRedisBreakerOpen/ticket"], 40: []},
        ),
        scenario(
            "one minute in four",
            {f'duet_cache_redis_breaker{{{A},side="reads"}}': " ".join(["0 0 0 1"] * 10)},
            {20: [], 39: []},
        ),
    ],
    "DuetCacheHitRatioDrop": [
        scenario(
            "the hit ratio falls to a fifth",
            lookups("memory", HIGH, LOW, HIGH, steps=(DAY, 6, 9)),
            {60 * 24: [], 60 * 24 + 60: [], 60 * 24 + 120: ["DuetCacheHitRatioDrop/ticket"], 60 * 24 + 220: []},
            interval=1200,
        ),
        scenario(
            "the hit ratio falls by an eighth",
            lookups("memory", HIGH, {"hit": 700, "miss": 300}, steps=(DAY, 6)),
            {60 * 24 + 120: []},
            interval=1200,
        ),
        scenario(
            "few lookups",
            lookups("memory", {"hit": 40, "miss": 10}, {"hit": 0, "miss": 50}, steps=(DAY, 6)),
            {60 * 24 + 120: []},
            interval=1200,
        ),
        scenario(
            "a restart", lookups("memory", HIGH, RESTART, HIGH, steps=(DAY, 1, 6)), {60 * 24 + 120: []}, interval=1200
        ),
    ],
    "DuetDigestSkew": [
        scenario(
            "one of two keeps the old digest",
            digests(a="old " * 5 + "new " * 60, b="old " * 65),
            {34: [], 38: ["DuetDigestSkew/ticket"]},
        ),
        scenario(
            "a rollout",
            digests(a="old " * 5 + "new " * 60, b="old " * 15 + "new " * 50, c="old " * 25 + "new " * 40),
            {10: [], 20: [], 33: [], 64: []},
        ),
        scenario(
            "a model is missing on one", digests(a="old " * 60, b="- " * 60), {29: [], 33: ["DuetDigestSkew/ticket"]}
        ),
        scenario(
            "two versions everywhere",
            {f'duet_model_info{{{A},model="m",digest="{digest}"}}': gauge((1, 60)) for digest in ("x", "y")},
            {35: [], 59: []},
        ),
    ],
    "DuetDrift": [
        scenario(
            "an alarm",
            {f'duet_drift_alarm{{{A},model="m",version="1"}}': gauge((0, 5), (1, 25), (0, 5))},
            {4: [], 5: ["DuetDrift/ticket"], 29: ["DuetDrift/ticket"], 31: []},
        ),
        scenario("another replica", {f'duet_drift_alarm{{{B},model="m",version="1"}}': gauge((0, 30))}, {20: []}),
    ],
    "DuetClassMix": [
        scenario(
            "half of one class became the other",
            predictions((200, 200, DAY), (40, 360, 6), (200, 200, 12)),
            {60 * 24: [], 60 * 24 + 60: [], 60 * 24 + 120: ["DuetClassMix/ticket"], 60 * 24 + 300: []},
            interval=1200,
        ),
        scenario("a tenth moved", predictions((200, 200, DAY), (160, 240, 6)), {60 * 24 + 120: []}, interval=1200),
        scenario("few predictions", predictions((20, 20, DAY), (0, 40, 6)), {60 * 24 + 120: []}, interval=1200),
        scenario(
            "a restart", predictions((200, 200, DAY), (-1, -1, 1), (200, 200, 6)), {60 * 24 + 120: []}, interval=1200
        ),
    ],
    "DuetAbsent": [
        Scenario(
            "nothing is read",
            {f"duet_ready{{{A}}}": gauge((1, 10), ("stale", 1), ("_", 20), (1, 20))},
            {9: [], 12: ["DuetServiceDown/page"], 16: ["DuetAbsent/page", "DuetServiceDown/page"], 34: []},
        ),
        Scenario("a service that answers", WELL, {1: [], 30: []}),
    ],
    "DuetServiceDown": [
        scenario(
            "its only replica is gone, and another service is well",
            {OTHER_SERVICE: gauge((1, 10), ("stale", 1), ("_", 20), (1, 9))},
            {10: [], 11: [], 13: ["DuetServiceDown/page"], 29: ["DuetServiceDown/page"], 33: []},
        ),
        scenario(
            "one of two replicas is gone",
            {f"duet_ready{{{B}}}": gauge((1, 10), ("stale", 1), ("_", 30))},
            {15: [], 35: []},
        ),
    ],
    "DuetNotReady": [
        scenario(
            "a replica does not become ready",
            {f"duet_ready{{{B}}}": gauge((0, 20), (1, 20))},
            {14: [], 16: ["DuetNotReady/ticket"], 22: []},
        ),
        scenario("a replica starts", {f"duet_ready{{{B}}}": gauge((0, 3), (1, 20))}, {2: [], 5: [], 20: []}),
    ],
    "DuetTargetDown": [
        scenario(
            "a replica cannot be read",
            {f"up{{{B}}}": gauge((1, 5), (0, 15), (1, 10))},
            {9: [], 11: ["DuetTargetDown/ticket"], 19: ["DuetTargetDown/ticket"], 22: []},
        ),
        scenario("a scrape fails", {f"up{{{B}}}": gauge((1, 5), (0, 1), (1, 10))}, {5: [], 7: [], 11: []}),
        scenario("another job", {'up{job="node",instance="x"}': gauge((0, 30))}, {10: [], 29: []}),
    ],
}


def causes(*names: str, changed: Alert | None = None) -> dict[str, Any]:
    """The rules of some groups, or of all, one alert changed."""
    found = []
    for name, parts in GROUPS.items():
        if not names or name in names:
            chosen = [changed if changed is not None and part.name == changed.name else part for part in parts]
            found.append({"name": name, "rules": [part.rule for part in chosen]})
    return {"groups": found}


def moved(alert: Alert) -> list[Alert]:
    """The alert with each of its numbers tenfold, and a tenth."""
    return [
        replace(alert, **{name: value * times})
        for name, times in product(("limit", "minutes", "least"), (10, 0.1))
        if (value := getattr(alert, name))
    ]


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules(OBJECTIVES)))
    command = [program("promtool", "prometheus"), "check", "rules", "--lint-fatal", path]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_has_scenarios() -> None:
    assert SCENARIOS.keys() == ALERTS.keys()


def test_nothing_fires_without_a_series_but_that_there_is_none(tmp_path: Path) -> None:
    nothing = Scenario("nothing", {"other": gauge((1, 30))}, {4: [], 8: ["DuetAbsent/page"], 29: ["DuetAbsent/page"]})
    assert surprises(causes(), [nothing, scenario("ready, and nothing else", {}, {8: [], 30: []})], tmp_path) == ""


@pytest.mark.parametrize("name", ALERTS)
def test_the_alert_and_no_other_fires(name: str, tmp_path: Path) -> None:
    assert surprises(causes(), SCENARIOS[name], tmp_path) == ""


@pytest.mark.parametrize("alert", [pytest.param(alert, id=name) for name, alert in ALERTS.items()])
def test_a_moved_number_is_noticed(alert: Alert, tmp_path: Path) -> None:
    (group,) = [name for name, parts in GROUPS.items() if alert in parts]
    for changed in moved(alert):
        content = causes(group, changed=changed)
        noticed = any(alert.name in surprises(content, [one], tmp_path) for one in SCENARIOS[alert.name])
        assert noticed, f"limit {changed.limit}, minutes {changed.minutes}, least {changed.least}"
