"""Ranks, tails and the sum against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data.arrays import Array, philox
from training.scorer.fusion import BODY, MOST, POINTS, TailNegLogProb, fused
from training.scorer.weights import weighted


def surprise_of(normal: Array, values: Array, *, two_sided: bool = False) -> Array:
    """Of one statistic."""
    made: Array = TailNegLogProb(normal[:, None], [two_sided])(torch.from_numpy(values)[:, None]).numpy()[:, 0]
    return made


@pytest.fixture(scope="module")
def normal() -> Array:
    return philox(0).gamma(2.0, 3.0, 3000).astype(np.float32)


def test_at_its_quantiles_it_is_minus_log_of_the_share(normal: Array) -> None:
    shares = np.linspace(0, BODY, POINTS)
    quantiles = np.quantile(normal.astype(np.float64), shares).astype(np.float32)
    np.testing.assert_allclose(surprise_of(normal, quantiles), -np.log(1 - shares), atol=2e-3)
    assert surprise_of(normal, normal.min()[None] - 5) == 0


def test_it_is_continuous_and_never_falls(normal: Array) -> None:
    values = np.linspace(normal.min() - 1, 3 * normal.max(), 20_000, dtype=np.float32)
    steps = np.diff(surprise_of(normal, values))
    assert steps.min() >= -1e-5
    assert steps.max() < 0.05


def test_beyond_the_last_quantile_the_tail_is_exponential(normal: Array) -> None:
    last = np.quantile(normal, BODY)
    excess = (normal[normal > last] - last).mean()
    far = last + excess * np.array([0.5, 1, 4, 12])
    expected = -np.log(1 - BODY) + np.array([0.5, 1, 4, 12])
    np.testing.assert_allclose(surprise_of(normal, far.astype(np.float32)), expected, rtol=1e-3)


def test_two_sided_is_the_rarer_side_at_twice_the_share() -> None:
    normal = np.linspace(-1, 1, 4001, dtype=np.float32)
    middle, low, high, far = surprise_of(normal, np.array([0, -0.8, 0.8, -1.5], np.float32), two_sided=True)
    assert middle == pytest.approx(0, abs=1e-2)
    assert low == pytest.approx(-np.log(0.2), abs=1e-2)
    assert high == pytest.approx(low, abs=1e-2)
    assert far > 4
    assert surprise_of(normal, np.float32([-1.5])) == 0, "one-sided, low is usual"


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, 100.0, -1e6, 3e20])
@pytest.mark.parametrize("two_sided", [True, False])
def test_a_constant_statistic_is_finite(constant: float, two_sided: bool) -> None:
    normal = np.full(50, constant, np.float32)
    values = np.array([constant, np.nextafter(normal[0], np.float32(np.inf)), constant - 1, constant + 1], np.float32)
    found = surprise_of(normal, values, two_sided=two_sided)
    assert np.isfinite(found).all()
    assert found[0] < 0.1, "what all have is no surprise"


def test_many_equal_values_among_others_are_finite() -> None:
    """Half of the images have the very same value: the quantiles that fall on it are one number."""
    normal = np.concatenate([np.full(100, 1000), philox(0).normal(1000, 1, 100)]).astype(np.float32)
    found = surprise_of(normal, np.sort(normal))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-5).all()


def test_a_few_images_that_end_alike_make_no_cliff() -> None:
    """Otherwise rounding of the statistic, in ONNX Runtime and in PyTorch, would be seen a thousandfold."""
    normal = np.array([*range(18), 20, 20.001], np.float32)
    beyond = surprise_of(normal, np.array([21, 22], np.float32))
    assert 0 < beyond[1] - beyond[0] <= 20 / normal.std()


def test_huge_values_end_at_the_bound(normal: Array) -> None:
    values = np.array([1e38, np.inf, -1e38, -np.inf], np.float32)
    assert surprise_of(normal, values).tolist() == [MOST, MOST, 0, 0]
    assert surprise_of(normal, values, two_sided=True).max() <= MOST
    assert not np.isnan(surprise_of(normal, values, two_sided=True)).any()


def test_one_normal_image_is_enough_to_be_finite() -> None:
    assert np.isfinite(surprise_of(np.float32([2.0]), np.array([1, 2, 3], np.float32))).all()


def test_squares_are_summed_as_in_numpy() -> None:
    surprises = philox(3).exponential(2.0, (30, 4)).astype(np.float32)
    plain = (surprises[:, :2].astype(np.float64) ** 2).sum(axis=1)
    expected = plain + 4 * np.maximum(surprises[:, 2] - 2, 0) ** 2 + 4 * surprises[:, 3] ** 2
    actual = fused(torch.from_numpy(surprises), ["latent", "energy", "defects", "views"]).numpy()
    assert actual.shape == (30,)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    weighed = weighted(surprises, ["latent", "energy", "defects", "views"])  # without torch, for reports
    np.testing.assert_allclose(weighed, actual, rtol=1e-6)


def test_everyday_surprises_of_the_defect_network_do_not_count() -> None:
    surprises = torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]])
    assert fused(surprises, ["features", "defects"]).tolist() == [1, 1, 17]
