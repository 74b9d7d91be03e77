"""The map is 1 where 99 % of normal images stay below, and glows where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.data.arrays import Array, philox
from training.scorer.anomaly_map import FLOOR, AnomalyMap

SHAPE = (14, 10)


@pytest.fixture(scope="module")
def maps() -> tuple[Array, Array]:
    """Residuals and defect logits of 500 normal images; the last two columns are always empty."""
    generator = philox(0)
    residual = generator.exponential(1.0, (500, *SHAPE)).astype(np.float32)
    residual *= np.linspace(1, 3, SHAPE[1], dtype=np.float32)
    residual[:, :, -2:] = 0
    defects = generator.normal(-4, 1, (500, *SHAPE)).astype(np.float32)
    defects[:, :, -2:] = -30
    return residual, defects


def test_one_in_a_hundred_normal_pixels_is_above_one(maps: tuple[Array, Array]) -> None:
    residual, defects = (torch.from_numpy(array) for array in maps)
    above = (AnomalyMap(*maps)(residual, defects) > 1).float().mean(dim=0)
    assert (above[:, :-2] - 0.01).abs().max() <= 0.002
    assert (above[:, -2:] <= 0.012).all(), "empty ones have what their neighbours blur into them"


def test_a_pixel_that_is_always_empty_does_not_glow_for_a_speck(maps: tuple[Array, Array]) -> None:
    heat = AnomalyMap(*maps)
    largest = heat.residual_scale.max()
    assert heat.residual_scale.min() >= FLOOR * largest * (1 - 1e-6)
    speck = np.zeros((1, *SHAPE), np.float32)
    speck[0, 7, -1] = 0.01
    quiet = np.full((1, *SHAPE), -30, np.float32)
    assert heat(torch.from_numpy(speck), torch.from_numpy(quiet)).max() < 1


def test_a_residual_shows_where_it_is(maps: tuple[Array, Array]) -> None:
    residual, defects = (array[:1].copy() for array in maps)
    residual[0, 3, 6] = 100
    shown = AnomalyMap(*maps)(torch.from_numpy(residual), torch.from_numpy(defects))[0]
    assert divmod(int(shown.argmax()), SHAPE[1]) == (3, 6)
    assert shown[3, 6] > 3
    assert (shown[8:] < 2).all(), "far from it all is as usual"


def test_what_the_defect_network_finds_shows_where_it_is(maps: tuple[Array, Array]) -> None:
    residual, defects = (array[:1].copy() for array in maps)
    defects[0, 11, 2] = 8
    shown = AnomalyMap(*maps)(torch.from_numpy(residual), torch.from_numpy(defects))[0]
    assert divmod(int(shown.argmax()), SHAPE[1]) == (11, 2)
    assert shown[11, 2] > 3


def test_maps_of_nothing_are_finite() -> None:
    nothing = np.zeros((1, *SHAPE), np.float32)
    assert AnomalyMap(nothing, nothing - 200)(torch.from_numpy(nothing), torch.from_numpy(nothing)).isfinite().all()
