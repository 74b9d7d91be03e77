"""A stampede is judged by what was computed, by what was answered, and by whether all answers are one."""

from dataclasses import replace

import pytest

from loadtests.bench.stampede import Row

GOOD = Row(name="", requests=30, answered=[10, 10, 10], bodies=1, computed=[1, 0, 0], each=1, in_all=1, seconds=0.1)


def test_once_in_all_is_met() -> None:
    assert GOOD.met
    assert GOOD.total == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"computed": [1, 1, 0]},
        {"computed": [2, 0, 0], "in_all": None},
        {"answered": [10, 9, 10]},
        {"bodies": 2},
        {"computed": [None, 1, 0], "answered": [1, 10, 10]},  # it was killed too late
        {"computed": [None, 1, 0], "answered": [0, 9, 10]},
    ],
)
def test_anything_else_is_missed(changes: dict[str, object]) -> None:
    assert not replace(GOOD, **changes).met  # type: ignore[arg-type]


def test_the_killed_replica_owes_no_answers() -> None:
    assert replace(GOOD, computed=[None, 1, 0], answered=[0, 10, 10]).met


def test_without_a_cache_there_is_no_bound() -> None:
    assert replace(GOOD, computed=[10, 10, 10], each=None, in_all=None).met
