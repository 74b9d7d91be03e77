from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics.localisation import aupro, pixel_auroc


def slow_aupro(maps: np.ndarray, regions: list[np.ndarray], limit: float) -> float:
    """Threshold by threshold, as the paper says it; `regions` are masks [N,H,W] of one region each."""
    outside = ~np.any(regions, axis=0)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        hot = maps >= threshold
        points.append(((hot & outside).sum() / outside.sum(), np.mean([hot[one].mean() for one in regions])))
    area = 0.0
    for (x, y), (further, higher) in pairwise(points):
        if x >= limit:
            break
        end = min(further, limit)
        at_end = higher if further <= limit else y + (higher - y) * (limit - x) / (further - x)
        area += (end - x) * (y + at_end) / 2
    return area / limit


def regions_of(count: int) -> list[np.ndarray]:
    """Regions of 1, 4 and 6 pixels, two in the first image; the last goes around a corner."""
    result = [np.zeros((count, 8, 8), bool) for _ in range(3)]
    result[0][0, 1, 1] = True
    result[1][0, 4:6, 4:6] = True
    result[2][-1, [0, 1, 2, 3, 4, 5], [0, 1, 2, 2, 2, 3]] = True
    return result


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 5, 1000]), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_is_that_of_the_plain_reference(seed: int, levels: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    regions = regions_of(3)
    masks = np.any(regions, axis=0)
    maps = (random.integers(levels, size=masks.shape) + masks * random.integers(levels)).astype(np.float32)
    assert aupro(maps, masks, limit) == pytest.approx(slow_aupro(maps, regions, limit))


def test_a_small_region_is_worth_a_large_one() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 0, 0] = True
    masks[0, 5:15, 5:15] = True
    small, large = np.zeros((2, 1, 20, 20))
    small[0, 0, 0] = large[0, 5:15, 5:15] = 1
    assert aupro(small, masks) == pytest.approx(aupro(large, masks))
    assert pixel_auroc(large, masks) > pixel_auroc(small, masks) + 0.4


def test_perfect_inverted_and_ignorant_maps() -> None:
    masks = np.any(regions_of(40), axis=0)
    assert aupro(masks.astype(float), masks) == 1
    assert pixel_auroc(masks.astype(float), masks) == 1
    assert aupro(-masks.astype(float), masks) == 0
    ignorant = aupro(np.random.default_rng(0).random((2000, 8, 8)), np.repeat(masks[:1], 2000, axis=0))
    assert ignorant == pytest.approx(0.15, abs=0.02)


def test_regions_of_neighbouring_images_are_not_one() -> None:
    """The same pixel in two images: found in one of them, half of the regions are found, whatever is in the other."""
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:6, 2:6] = masks[1, 2, 2] = True
    maps = np.zeros((2, 8, 8))
    maps[1, 2, 2] = 1
    assert aupro(maps, masks) == pytest.approx(
        slow_aupro(maps, [masks & rows for rows in np.eye(2, dtype=bool)[:, :, None, None]], 0.3)
    )


@pytest.mark.parametrize("value", [False, True])
def test_without_defects_or_without_anything_else_there_is_no_overlap(value: bool) -> None:
    masks = np.full((2, 4, 4), value)
    with pytest.raises(ValueError, match=f"masks: {32 * value} of 32 pixels are defects"):
        aupro(np.zeros((2, 4, 4)), masks)
