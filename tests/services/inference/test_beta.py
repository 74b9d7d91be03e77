"""The beta distribution is SciPy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.inference.beta import beta_below, beta_quantile

counts = st.integers(1, 20_000)


@given(st.floats(0, 1), counts, counts)
def test_the_probability_is_right(x: float, a: int, b: int) -> None:
    assert beta_below(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)


@given(st.floats(1e-6, 1 - 1e-6), counts, counts)
def test_the_quantile_is_right(level: float, a: int, b: int) -> None:
    assert beta_quantile(level, a, b) == pytest.approx(stats.beta.ppf(level, a, b), rel=1e-6)


@pytest.mark.parametrize(("x", "below"), [(-1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (2.0, 1.0)])
def test_nothing_is_below_0_and_all_below_1(x: float, below: float) -> None:
    assert beta_below(x, 3, 5) == below


@given(counts, st.integers(1, 5000), st.floats(1e-4, 1 - 1e-4))
def test_it_is_the_upper_tail_of_the_binomial_distribution(size: int, k: int, rate: float) -> None:
    k = min(k, size)
    assert beta_below(rate, k, size + 1 - k) == pytest.approx(stats.binom.sf(k - 1, size, rate), abs=1e-9)
