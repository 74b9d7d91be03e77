"""Regions are those of SciPy's labelling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from services.inference.regions import Region, regions


def by_scipy(heat: np.ndarray, threshold: float) -> list[tuple[tuple[int, int, int, int], float, int]]:
    labels, count = ndimage.label(heat > threshold, np.ones((3, 3)))
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    where = range(1, count + 1)
    peaks, areas = ndimage.maximum(heat, labels, where), ndimage.sum_labels(heat > threshold, labels, where)
    return sorted(zip(boxes, map(float, peaks), map(int, areas), strict=True))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_they_are_scipys(height: int, width: int, threshold: float, seed: int) -> None:
    heat = np.random.default_rng(seed).random((height, width), np.float32)
    found = regions(heat, threshold, heat.size)
    assert sorted((region.box, region.peak, region.area) for region in found) == by_scipy(heat, threshold)
    areas = [region.area for region in found]
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_only_the_largest_are_told(most: int) -> None:
    heat = np.random.default_rng(0).random((32, 32))
    assert regions(heat, 0.7, most) == regions(heat, 0.7, heat.size)[:most]


def test_a_corner_joins_and_the_edge_is_part_of_the_map() -> None:
    heat = np.array([[2, 0, 0, 3], [0, 2, 0, 0], [0, 0, 0, 5]])
    assert regions(heat, 1, 9) == [
        Region((0, 0, 2, 2), 2, 2),
        Region((3, 0, 4, 1), 3, 1),
        Region((3, 2, 4, 3), 5, 1),
    ]


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_nothing_above_the_threshold_is_no_region(value: float) -> None:
    assert regions(np.full((4, 4), value), 1, 9) == []
