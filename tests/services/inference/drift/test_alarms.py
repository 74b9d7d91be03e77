"""An alarm ends after 128 slices without another, or twice as many as it took."""

from __future__ import annotations

import pytest

from services.inference.drift.alarms import HELD, KEPT, Alarms, Cause


def cause(slices: int) -> Cause:
    return Cause("rate", 0, 0.5, (0.0, 0.04), slices)


@pytest.mark.parametrize(("took", "held"), [(1, 128), (64, 128), (65, 130), (300, 600)])
def test_it_is_held_for_128_slices_or_twice_as_many_as_it_took(took: int, held: int) -> None:
    alarms = Alarms()
    raised = alarms.reach(cause(took), 1000, 5.0)
    assert raised is alarms.active is not None
    assert all(alarms.pass_over(1000 + passed, 6.0) is None for passed in range(1, held))
    assert alarms.remaining(1000 + held - 1) == 1
    assert alarms.pass_over(1000 + held, 7.0) is raised
    assert (raised.raised, raised.ended, alarms.active) == (5.0, 7.0, None)
    assert alarms.pass_over(1000 + held + 1, 8.0) is None


def test_another_finding_prolongs_it_and_is_no_other_alarm() -> None:
    alarms = Alarms()
    first = alarms.reach(cause(100), 0, 0.0)
    assert alarms.reach(cause(10), 150, 0.0) is None
    assert first is not None
    assert first.cause == cause(100)
    assert alarms.remaining(150) == 200  # held as long as by the slower of the two
    assert alarms.pass_over(349, 0.0) is None
    assert alarms.pass_over(350, 0.0) is first
    again = alarms.reach(cause(10), 351, 0.0)
    assert again is not first
    assert alarms.remaining(351) == HELD


def test_the_last_32_are_kept() -> None:
    alarms = Alarms()
    for number in range(40):
        alarms.reach(cause(1), 1000 * number, float(number))
        alarms.pass_over(1000 * number + HELD, number + 0.5)
    assert [alarm.raised for alarm in alarms.all] == list(range(40 - KEPT, 40))
