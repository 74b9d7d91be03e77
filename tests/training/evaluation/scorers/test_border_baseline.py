from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.scorers.border_baseline import border_mass, trivial


def test_only_the_two_outermost_pixels_count() -> None:
    image = np.zeros((1, 3, 8, 10), np.uint8)
    image[..., 2:-2, 2:-2] = 255
    assert border_mass(image) == 0
    assert border_mass(255 - image) == 255
    image[0, 0, 0, 0] = 168  # of 3 * (80 - 24) pixels
    assert border_mass(image) == 1


def bordered(masses: list[int]) -> np.ndarray:
    return np.repeat(np.array(masses, np.uint8), 64).reshape(-1, 1, 8, 8)


@pytest.mark.parametrize(
    ("anomalous", "two_sided", "best"),
    [([0, 255], 1, 1), ([70, 75], 6.5 / 8, 1), ([145], 0.75, 0.75), ([110], 0, 0.5)],
)
def test_both_sides_of_the_median_and_the_better_of_three(anomalous: list[int], two_sided: float, best: float) -> None:
    usual, normal = bordered([90, 100, 110, 111, 112]), bordered([80, 100, 120, 150])
    found = trivial(usual, normal, bordered(anomalous))
    assert found.two_sided.auroc == pytest.approx(two_sided)
    assert found.best.auroc == pytest.approx(best)
