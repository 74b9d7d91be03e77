"""Levels keep what the theory promises of them; SciPy has the distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.inference import conformal

sizes = st.integers(1, 6000)
levels = st.floats(1e-4, 1 - 1e-4)
p_values = st.lists(st.integers(1, 50), min_size=1, max_size=40).map(lambda ks: np.array(ks, np.float32) / 50)


@given(levels, sizes)
def test_the_rank_is_the_last_p_value_on_the_grid_that_is_not_above(alpha: float, size: int) -> None:
    k = conformal.rank(alpha, size)
    assert k / (size + 1) <= alpha + 1e-9 < (k + 1) / (size + 1) + 2e-9


@pytest.mark.parametrize(("alpha", "size", "k"), [(0.29, 99, 29), (0.1, 29, 3), (0.07, 99, 7), (0.001, 56, 0)])
def test_the_rank_does_not_stumble_over_rounding(alpha: float, size: int, k: int) -> None:
    assert conformal.rank(alpha, size) == k


@given(levels, sizes)
def test_the_pac_rank_is_the_largest_that_is_sure(alpha: float, size: int) -> None:
    k = conformal.pac_rank(alpha, size)

    def sure(k: int) -> float:
        return float(stats.binom.sf(k - 1, size, alpha))  # at least k of the calibration images above the true quantile

    assert sure(k) >= 0.95 - 1e-9
    assert k == size or sure(k + 1) < 0.95 + 1e-9
    assert (k > 0) == (size >= conformal.pac_size(alpha))


@given(levels, sizes)
def test_the_band_is_the_centre_of_the_beta_distribution(alpha: float, size: int) -> None:
    k = conformal.rank(alpha, size)
    expected = stats.beta.ppf([0.025, 0.975], k, size + 1 - k) if 0 < k <= size else [float(k > 0)] * 2
    assert conformal.band(k, size) == pytest.approx(expected, rel=1e-6)


def test_the_band_holds_the_rates_of_real_calibration_sets() -> None:
    random = np.random.default_rng(0)
    size, alpha = 272, 0.05
    k = conformal.rank(alpha, size)
    # Of uniform scores, the rate of false alarms is what lies above the k-th highest calibration score.
    rates = 1 - np.sort(random.random((4000, size)), axis=1)[:, size - k]
    low, high = conformal.band(k, size)
    assert ((rates >= low) & (rates <= high)).mean() == pytest.approx(0.95, abs=0.015)
    careful = 1 - np.sort(random.random((4000, size)), axis=1)[:, size - conformal.pac_rank(alpha, size)]
    assert (careful <= alpha).mean() > 0.94
    assert (rates <= alpha).mean() < 0.7


@given(p_values, levels)
def test_the_false_discovery_threshold_is_scipys(p: np.ndarray, alpha: float) -> None:
    threshold = conformal.benjamini_hochberg(p, alpha)
    adjusted = stats.false_discovery_control(p.astype(float), method="bh")
    near = np.abs(adjusted - alpha) < 1e-6  # where rounding may decide
    assert ((p <= np.float32(threshold)) == (adjusted <= alpha))[~near].all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40).map(lambda s: np.array(s, np.float32)), levels)
def test_so_many_are_chosen_and_none_that_is_usual_before_one_that_is_not(scores: np.ndarray, share: float) -> None:
    chosen = conformal.most_unusual(scores, share)
    assert chosen.sum() == math.ceil(share * len(scores) - 1e-9)
    assert scores[chosen].min() >= scores[~chosen].max(initial=-np.inf)
