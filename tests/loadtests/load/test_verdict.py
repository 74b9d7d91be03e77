"""When a run is met, missed or invalid."""

import pytest

from loadtests.load.__main__ import worst
from loadtests.load.outcomes import Outcome, Outcomes
from loadtests.load.verdict import INVALID, MET, MISSED, Generator, Objective, decide

AVAILABLE = Objective("availability", "", 0.99)
FAST = Objective("latency", "/(classify|generate)", 0.9, seconds=0.1)


def outcomes(right: int, slow: int = 0, **others: int) -> Outcomes:
    found = Outcomes()
    for _ in range(right):
        found.add("/classify", Outcome.right, 0, 0.05)
    for _ in range(slow):
        found.add("/classify", Outcome.right, 0, 0.5)
    for name, count in others.items():
        for _ in range(count):
            found.add("/classify", Outcome[name], 0, 0.01)
    return found


@pytest.mark.parametrize("name", ["wrong", "refused", "late", "broken", "unsent"])
def test_whatever_is_not_right_counts_against_availability(name: str) -> None:
    assert decide(outcomes(99, **{name: 1}), [AVAILABLE], Generator()).status == MET
    missed = decide(outcomes(98, **{name: 2}), [AVAILABLE], Generator())
    assert missed.status == MISSED
    assert missed.reasons == ("availability: 98 % of 100 answered rightly, wanted 99 %",)


def test_slow_answers_count_against_latency_alone() -> None:
    assert decide(outcomes(90, slow=10), [AVAILABLE, FAST], Generator()).status == MET
    missed = decide(outcomes(89, slow=11), [AVAILABLE, FAST], Generator())
    assert missed.status == MISSED
    assert missed.reasons == ("latency: 89 % of 100 answered rightly within 100 ms, wanted 90 %",)


def test_another_route_is_not_counted() -> None:
    found = outcomes(10)
    for _ in range(90):
        found.add("/score", Outcome.right, 0, 3.0)
    (result,) = decide(found, [FAST], Generator()).results
    assert (result.good, result.total) == (10, 10)


def test_a_slow_generator_or_a_lost_worker_makes_a_run_invalid() -> None:
    good = outcomes(100)
    assert decide(good, [FAST], Generator(lag=0.01)).status == MET
    late = decide(good, [FAST], Generator(lag=0.02))
    assert late.status == INVALID
    assert "1 % of the requests left 20 ms late or later, and 10 ms are allowed" in late.reasons[0]
    lost = decide(outcomes(1, broken=9), [AVAILABLE], Generator(troubles=["worker 1 died"]))
    assert lost.status == INVALID  # even where the objective is missed: what is lost might have been good
    assert decide(Outcomes(), [AVAILABLE], Generator()).reasons == ("no request was due",)


def test_the_worst_of_several_runs_counts_and_a_killed_one_is_invalid() -> None:
    assert worst([MET, MET]) == MET
    assert worst([MET, MISSED, MET]) == MISSED
    assert worst([MET, -9, MISSED]) == INVALID
