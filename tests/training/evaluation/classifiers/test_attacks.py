from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from training.evaluation.classifiers.attacks import ATTACKS, EPSILONS
from training.graphs.gradient import Differentiable, differentiable
from training.graphs.inference import predict

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow  # the published fixture trains
SOME = 40


@pytest.fixture(scope="module")
def network(published: Published) -> Differentiable:
    return differentiable(published.classifier.graph_path("classify"), published.dataset.test.images[:4])


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [1, 8])
def test_no_pixel_changes_by_more_than_epsilon(
    network: Differentiable, published: Published, name: str, epsilon: int
) -> None:
    images, labels = published.dataset.test.images[:SOME], published.dataset.test.labels[:SOME]
    attacked = ATTACKS[name](network, images, labels, epsilon)
    assert attacked.dtype == np.uint8
    assert np.abs(attacked.astype(int) - images).max() == epsilon
    assert np.array_equal(attacked, ATTACKS[name](network, images, labels, epsilon))


def test_attacks_hurt_more_than_noise_and_pgd_more_than_fgsm(network: Differentiable, published: Published) -> None:
    images, labels = published.dataset.test.images[:SOME], published.dataset.test.labels[:SOME]
    epsilon = EPSILONS[-2]
    signs = np.random.default_rng(0).choice([-epsilon, epsilon], images.shape)
    noisy = np.clip(images + signs, 0, 255).astype(np.uint8)

    def nll(changed: np.ndarray) -> float:
        probabilities = predict(published.classifier, changed)["probabilities"]
        return float(-np.log(np.maximum(probabilities[np.arange(SOME), labels], 1e-30)).mean())

    fgsm, pgd = (nll(ATTACKS[name](network, images, labels, epsilon)) for name in ("fgsm", "pgd"))
    assert nll(images) < nll(noisy) < fgsm < pgd
