"""Records of requests: exact counts, latencies with three significant digits, merged over processes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.load.outcomes import Outcome, Outcomes, of_status


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "right"), (429, "refused"), (503, "refused"), (504, "late"), (408, "late"), (500, "broken"), (0, "broken")],
)
def test_a_status_says_the_outcome(status: int, outcome: str) -> None:
    assert of_status(status) == outcome


@given(st.lists(st.tuples(st.floats(1e-6, 3000), st.integers(0, 5)), min_size=1, max_size=50), st.integers(0, 50))
def test_parts_merge_to_the_whole(found: list[tuple[float, int]], cut: int) -> None:
    whole, first, second = Outcomes(), Outcomes(), Outcomes()
    for index, (seconds, due) in enumerate(found):
        for one in (whole, first if index < cut else second):
            one.add("/classify", Outcome.right, due, seconds)
            one.add_lag(seconds)
    merged = Outcomes()
    for part in (first, second):
        merged.merge(json.loads(json.dumps(part.dump())))
    assert merged.counts == whole.counts
    assert merged.lags == whole.lags
    assert merged.count()[Outcome.right] == len(found)
    for percent in (50, 99):
        assert merged.histogram().get_value_at_percentile(percent) == whole.histogram().get_value_at_percentile(percent)


@given(st.lists(st.floats(1e-5, 3000), min_size=1, max_size=200), st.sampled_from([50.0, 99.0, 100.0]))
def test_percentiles_are_those_of_the_latencies(latencies: list[float], percent: float) -> None:
    outcomes = Outcomes()
    for seconds in latencies:
        outcomes.add("/score", Outcome.right, 0, seconds)
    exact = sorted(latencies)[max(0, -(-len(latencies) * int(percent) // 100) - 1)]
    assert outcomes.histogram().get_value_at_percentile(percent) / 1e6 == pytest.approx(exact, rel=0.01, abs=2e-6)


def test_seconds_and_routes_are_told_apart() -> None:
    outcomes = Outcomes()
    outcomes.add("/score", Outcome.right, 7.9, 0.1)
    outcomes.add("/score", Outcome.refused, 8.1, 0.2)
    outcomes.add("/classify", Outcome.right, 8.1, 0.3)
    assert outcomes.count("/score", range(7, 8)) == dict.fromkeys(Outcome, 0) | {Outcome.right: 1}
    assert outcomes.count(seconds=range(8, 9))[Outcome.refused] == 1
    assert outcomes.count_within("/classify", 299_999) == 0
    assert outcomes.count_within("/classify", 300_000) == 1
