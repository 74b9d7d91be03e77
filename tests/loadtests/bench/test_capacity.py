"""Where a ramp shows that a service is full, and how a search ended."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.bench.capacity import RAMP, full, result


def seconds(*found: tuple[int, int, float]) -> dict[str, Any]:
    """A report whose seconds have so many right and refused requests and a 99th percentile in milliseconds."""
    return {
        "by_second": [
            {"second": second, "outcomes": {"right": right, "refused": refused}, "milliseconds": {"p99": p99}}
            for second, (right, refused, p99) in enumerate(found)
        ]
    }


def test_a_ramp_shows_the_first_second_in_which_requests_fail_or_are_slow() -> None:
    first, last, length = RAMP
    assert full(seconds((9, 0, 20), (40, 0, 80), (70, 1, 90)), 250) == pytest.approx(
        first + (last - first) * 2 / length
    )
    assert full(seconds((9, 0, 20), (40, 0, 300), (70, 1, 90)), 250) == pytest.approx(first + (last - first) / length)
    assert full(seconds((9, 0, 20), (40, 0, 80)), 250) == last


@pytest.mark.parametrize(
    ("verdicts", "verdict", "end"),
    [
        (["met", "missed"], "met", "an objective was missed"),
        (["met", "met"], "met", "the last step was met"),
        (["met", "invalid"], "invalid", "Locust was too slow to go on"),
    ],
)
def test_a_search_says_how_it_ended(verdicts: list[str], verdict: str, end: str) -> None:
    phases = [{"rate": 10.0 * number, "verdict": each} for number, each in enumerate(verdicts, 1)]
    found = result({"capacity": 10.0, "phases": phases, "verdict": verdict, "reasons": []})
    assert (found["capacity"], found["end"], found["steps"]) == (10.0, end, phases)
