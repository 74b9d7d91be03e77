"""The interval of a median: which values bound it, and how often it covers the true one."""

import numpy as np
import pytest

from loadtests.bench.interval import coverage, interval


def test_eight_rounds_are_bounded_by_the_lowest_and_the_highest() -> None:
    found = interval([5, 1, 8, 2, 7, 3, 6, 4])
    assert (found.median, found.low, found.high) == (4.5, 1, 8)
    assert found.coverage == pytest.approx(1 - 2 / 2**8)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (17, 5), (20, 6)])
def test_the_ranks_are_those_of_the_tables(count: int, rank: int) -> None:
    """Conover, Practical Nonparametric Statistics, table of the binomial distribution with p = 1/2."""
    found = interval(range(1, count + 1))
    assert (found.low, found.high) == (rank, count + 1 - rank)
    assert coverage(count, rank - 1) >= 0.95 > coverage(count, rank)


def test_it_covers_the_true_median_as_often_as_it_says() -> None:
    """Of a skewed distribution, whose median is log 2."""
    drawn = np.random.default_rng(0).exponential(size=(4000, 12))
    found = [interval(row) for row in drawn.tolist()]
    covered = np.mean([each.low <= np.log(2) <= each.high for each in found])
    assert covered == pytest.approx(found[0].coverage, abs=0.012)  # 4 standard deviations


def test_one_value_is_its_own_interval_without_a_promise() -> None:
    found = interval([3.0])
    assert (found.median, found.low, found.high, found.coverage) == (3.0, 3.0, 3.0, 0.0)
    assert found.show(".1f") == "3.0 [3.0, 3.0]"
