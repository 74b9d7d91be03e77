"""Budgets for errors: pages and tickets come when theory says so, stay away where they should, and end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.monitoring.burn_rates import LEAST_ERRORS, PERIOD_DAYS, WINDOWS, Window, burn_rates, seconds
from deploy.monitoring.objectives import BOUNDS, Objective, read
from tests.deploy.monitoring.promtool import LABELS, Scenario, counter, surprises

OBJECTIVES = {objective.name: objective for objective in read()}
AVAILABILITY = OBJECTIVES["availability"]
LATENCIES = [objective for objective in OBJECTIVES.values() if objective.seconds is not None]
ROUTE = {"availability": "/classify", "latency-classify": "/classify", "latency-score": "/score"}
DECIDES = {
    "1h": (1, 0.1, 0.02),
    "6h": (0.01,),
    "1d": (0.1, 0.02),
    "3d": (0.002,),
}  # shares, by the window that fires first
SHARES = (1, 0.1, 0.02, 0.01, 0.002)  # of bad requests
INTERVAL = {"1h": 30, "6h": 300, "1d": 1800, "3d": 3600}  # seconds between evaluations, in a test of a long window
NAME = "duet_request_duration_seconds"


def theory(objective: Objective, windows: Sequence[Window], share: float) -> float:
    """Seconds until an alert, when a share of the requests begins to be bad after a long time without errors."""
    times = [
        window.factor * objective.budget * seconds(window.long) / share
        for window in windows
        if share > window.factor * objective.budget
    ]
    return min(times, default=math.inf)


def requests(objective: Objective, *segments: tuple[float, float, int]) -> dict[str, str]:
    """Series of requests: how many a scrape are good, how many are bad, and number of scrapes; -1: a restart."""
    of = f'{LABELS},instance="a",route="{ROUTE.get(objective.name, "/generate")}"'
    good = counter(*[(good, steps) for good, _, steps in segments])
    bad = counter(*[(bad, steps) for _, bad, steps in segments])
    both = counter(*[(good if good < 0 else good + bad, steps) for good, bad, steps in segments])
    if objective.seconds is None:
        mistakes = {f'{NAME}_count{{{of},status="{status}"}}': both for status in (404, 422, 499, 501)}
        return {f'{NAME}_count{{{of},status="200"}}': good, f'{NAME}_count{{{of},status="503"}}': bad} | mistakes
    # The bad ones take a little longer than allowed, and the good ones not much less.
    buckets = {
        f'{NAME}_bucket{{{of},status="200",le="{bound}"}}': "0x300"
        if float(bound) < objective.seconds
        else good
        if float(bound) == objective.seconds
        else both
        for bound in BOUNDS
    }
    errors = {f'{NAME}_count{{{of},status="503"}}': both}  # they are a matter of availability
    return buckets | errors | {f'{NAME}_count{{{of},status="200"}}': both}


def alert(objective: Objective, severity: str) -> str:
    return f'ALERTS{{alertname="{objective.alert}",severity="{severity}",alertstate="firing"}}'


def begins(
    objective: Objective, windows: Sequence[Window], share: float, *, interval: int, rate: float = 1
) -> Scenario:
    """A share of the requests begins to be bad: the alert fires at the first evaluation after theory.

    Args:
        objective: what the requests are for.
        windows: those of the rules, of one severity.
        share: of bad requests.
        interval: seconds between evaluations.
        rate: requests a second.
    """
    quiet = max(seconds(window.long) for window in windows)
    due = theory(objective, windows, share)
    before, after = (math.ceil(due / interval) - 1) * interval, (math.floor(due / interval) + 1) * interval
    good, bad = (1 - share) * rate * interval, share * rate * interval
    series = requests(objective, (rate * interval, 0, quiet // interval), (good, bad, after // interval + 1))
    firing, whole = alert(objective, windows[0].severity), objective.budget * rate * PERIOD_DAYS * 86400
    spent = f"sum(slo:sli_error:rate{windows[-1].long} * {seconds(windows[-1].long)}) / {whole}"
    of_theory, one_more = share * due * rate / whole, bad / whole
    return Scenario(
        f"{windows[0].severity} of {objective.name} at {share:.1%}",
        series,
        {},
        interval=interval,
        holds={
            (quiet + before) / 60: [f"absent({firing})"],
            (quiet + after) / 60: [firing, f"({spent} >= {0.999999 * of_theory}) <= {of_theory + 1.001 * one_more}"],
        },
    )


def rules(
    objective: Objective, windows: Sequence[Window] = WINDOWS, least_errors: float = LEAST_ERRORS
) -> dict[str, Any]:
    return {"groups": [burn_rates(objective, windows, least_errors)]}


def of_severity(severity: str) -> list[Window]:
    return [window for window in WINDOWS if window.severity == severity]


def good_only(objective: Objective) -> Scenario:
    """Only good requests, each of them close to the threshold of latency."""
    return Scenario("good requests", requests(objective, (60, 0, 80)), {30: [], 80: []})


def test_windows_and_factors_are_those_of_sloth() -> None:
    assert [(window.severity, window.short, window.long) for window in WINDOWS] == [
        ("page", "5m", "1h"),
        ("page", "30m", "6h"),
        ("ticket", "2h", "1d"),
        ("ticket", "6h", "3d"),
    ]
    assert [window.factor for window in WINDOWS] == [14.4, 6, 3, 1]
    for window in WINDOWS:  # what is spent in the long window, at so many times the rate that is allowed
        assert window.factor * seconds(window.long) == pytest.approx(window.spent * PERIOD_DAYS * 86400)
        assert seconds(window.long) == 12 * seconds(window.short)


def test_the_times_of_theory() -> None:
    """Seconds to a page and to a ticket, at a budget of 0.1 %."""
    times = {
        severity: [theory(AVAILABILITY, of_severity(severity), share) for share in SHARES]
        for severity in ("page", "ticket")
    }
    assert times["page"] == pytest.approx([51.84, 518.4, 2592, 12960, math.inf])
    assert times["ticket"] == pytest.approx([259.2, 2592, 12960, 25920, 129600])


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.long)
def test_each_window_fires_when_theory_says(window: Window, tmp_path: Path) -> None:
    shares = DECIDES[window.long]
    scenarios = [begins(AVAILABILITY, [window], share, interval=INTERVAL[window.long]) for share in shares]
    assert surprises(rules(AVAILABILITY, [window]), scenarios, tmp_path) == ""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("severity", "share"),
    [
        (severity, share)
        for severity in ("page", "ticket")
        for share in SHARES
        if theory(AVAILABILITY, of_severity(severity), share) < math.inf  # so few errors page nobody
    ],
)
def test_all_windows_together_fire_when_theory_says(severity: str, share: float, tmp_path: Path) -> None:
    """As in production: evaluated every half minute."""
    windows = of_severity(severity)
    assert surprises(rules(AVAILABILITY), [begins(AVAILABILITY, windows, share, interval=30)], tmp_path) == ""


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda objective: objective.name)
def test_failed_or_slow_requests_spend_the_budget_and_others_do_not(objective: Objective, tmp_path: Path) -> None:
    scenarios = [begins(objective, WINDOWS[:1], 1, interval=60), good_only(objective)]
    assert surprises(rules(objective, WINDOWS[:1]), scenarios, tmp_path) == ""


def pages(*segments: tuple[float, float, int], minutes: dict[float, bool], name: str) -> Scenario:
    """Requests a minute, and when somebody is paged."""
    fires = {minute: [f"{AVAILABILITY.alert}/page"] if paged else [] for minute, paged in minutes.items()}
    return Scenario(name, requests(AVAILABILITY, *segments), fires)


BEHAVIOUR = [
    pages((60, 0.8, 90), name="errors within the rate that pages", minutes={60: False, 90: False}),
    pages(
        *[(60, 0, 60), (0, 60, 10), (60, 0, 30)],
        name="it ends when the short window has no errors",
        minutes={65: True, 74: True, 76: False, 100: False},
    ),
    pages(
        (1, 0, 59),
        (0, 1, 3),
        (1, 0, 60),
        name="three errors of sixty requests",
        minutes={62: False, 70: False, 120: False},
    ),
    pages((0, 0, 60), (0, 1, 9), (0, 0, 30), name="nine errors, and nothing else", minutes={70: False, 75: False}),
    pages(
        (60, 0, 60), (-1, -1, 1), (60, 0, 30), name="a restart is no error", minutes={61: False, 62: False, 90: False}
    ),
    pages(
        *[(60, 0, 60), (0, 60, 5), (-1, -1, 1), (0, 60, 5)],
        name="errors before and after a restart",
        minutes={60: False, 64: True, 67: True, 70: True},
    ),
]


def test_pages_begin_and_end_and_survive_little_traffic_and_restarts(tmp_path: Path) -> None:
    assert surprises(rules(AVAILABILITY, WINDOWS[:1]), BEHAVIOUR, tmp_path) == ""


def test_missing_series_raise_no_alert(tmp_path: Path) -> None:
    good, bad = requests(AVAILABILITY, (60, 60, 90)), requests(AVAILABILITY, (60, 0, 60))
    never_failed = {name: values for name, values in bad.items() if 'status="503"' not in name}
    name, total = next(iter(never_failed.items()))
    ends = {name: f"{total} stale"}
    only_errors = {name: values for name, values in good.items() if 'status="503"' in name}
    page = f"{AVAILABILITY.alert}/page"
    scenarios = [
        Scenario("nothing at all", {"up": "1x120"}, {60: [], 120: []}),
        Scenario("no error yet", never_failed, {30: [], 60: []}, holds={60: ["slo:sli_error:ratio_rate1h == 0"]}),
        Scenario("the service is removed", ends, {60: [], 120: []}),
        Scenario("every request has failed since the start", only_errors, {60: [page], 89: [page]}),
    ]
    assert surprises(rules(AVAILABILITY, WINDOWS[:1]), scenarios, tmp_path) == ""


@pytest.mark.parametrize("times", [0.1, 10])
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.long)
def test_a_moved_burn_rate_is_noticed(window: Window, times: float, tmp_path: Path) -> None:
    moved = replace(window, spent=window.spent * times)
    scenario = begins(AVAILABILITY, [window], min(DECIDES[window.long]), interval=INTERVAL[window.long])
    assert surprises(rules(AVAILABILITY, [moved]), [scenario], tmp_path)


@pytest.mark.parametrize("times", [0.1, 10])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda objective: objective.name)
def test_a_moved_objective_is_noticed(objective: Objective, times: float, tmp_path: Path) -> None:
    moved = replace(objective, percent=100 - times * (100 - objective.percent))
    share = min(1, 20 * objective.budget)
    scenario = begins(objective, WINDOWS[:1], share, interval=60)
    assert surprises(rules(moved, WINDOWS[:1]), [scenario], tmp_path)


@pytest.mark.parametrize("times", [0.1, 10])
@pytest.mark.parametrize("objective", LATENCIES, ids=lambda objective: objective.name)
def test_a_moved_threshold_of_latency_is_noticed(objective: Objective, times: float, tmp_path: Path) -> None:
    assert objective.seconds is not None
    bound = f"{float(f'{objective.seconds * times:.10g}')}"
    query = objective.error_query.replace(f'le="{objective.seconds}"', f'le="{bound}"')
    assert bound in BOUNDS
    scenarios = [begins(objective, WINDOWS[:1], 1, interval=60) if times > 1 else good_only(objective)]
    assert surprises(rules(replace(objective, error_query=query), WINDOWS[:1]), scenarios, tmp_path)


@pytest.mark.parametrize("times", [0.1, 10])
def test_a_moved_floor_is_noticed(times: float, tmp_path: Path) -> None:
    few = next(scenario for scenario in BEHAVIOUR if scenario.name == "three errors of sixty requests")
    scenario = begins(AVAILABILITY, WINDOWS[:1], 1, interval=60) if times > 1 else few
    assert surprises(rules(AVAILABILITY, WINDOWS[:1], times * LEAST_ERRORS), [scenario], tmp_path)
