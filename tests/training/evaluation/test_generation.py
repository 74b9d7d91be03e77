from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from training.evaluation.generation import (
    balanced_labels,
    sample,
    total_variation,
)

if TYPE_CHECKING:
    from conftest import Published


def test_total_variation() -> None:
    balanced = np.array([0, 0, 1, 1], np.int64)
    assert total_variation(balanced, balanced, 3) == 0
    assert total_variation(np.array([2, 2, 2, 2], np.int64), balanced, 3) == 1
    assert total_variation(np.array([0, 0, 0, 1], np.int64), balanced, 3) == pytest.approx(0.25)


@pytest.mark.slow
def test_samples_depend_on_the_seed_alone(published: Published) -> None:
    samples = [sample(published.generator, 5, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    assert balanced_labels(published.generator, 5) is None
