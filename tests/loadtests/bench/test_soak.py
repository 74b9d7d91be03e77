"""The slope of memory is that of its line after warm-up."""

import pytest

from loadtests.bench.soak import slope


def test_growth_is_found_and_warm_up_left_out() -> None:
    warming = [(float(second), 100.0 + second) for second in range(10)]
    steady = [(float(second), 120.0 + 0.001 * second) for second in range(10, 101)]
    assert slope(warming + steady) == pytest.approx(3.6)


def test_constant_memory_has_no_slope() -> None:
    assert slope([(float(second), 150.0) for second in range(50)]) == pytest.approx(0, abs=1e-6)
