from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.spatial.distance import pdist  # type: ignore[import-untyped]

from training.evaluation.generation import (
    balanced_labels,
    cross_entropy,
    gaussian_kl,
    mean_distance,
    relative_diversity,
    sample,
    total_variation,
    vae_metrics,
)

if TYPE_CHECKING:
    from conftest import Published


def test_cross_entropy_by_hand() -> None:
    images = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3)
    pixels = np.array([0.25, 0.5, 0.2], np.float32).reshape(1, 1, 1, 3)
    expected = -np.log(0.75) - np.log(0.5) - 0.2 * np.log(0.2) - 0.8 * np.log(0.8)
    np.testing.assert_allclose(cross_entropy(images, pixels), [expected], rtol=1e-6)


def test_cross_entropy_is_finite_where_the_decoder_is_wrong_and_sure() -> None:
    images = np.array([0, 255], np.uint8).reshape(1, 1, 1, 2)
    pixels = np.array([1, 0], np.float32).reshape(1, 1, 1, 2)
    np.testing.assert_allclose(cross_entropy(images, pixels), [-2 * np.log(1e-7)], rtol=1e-6)


def test_gaussian_kl() -> None:
    zero = np.zeros((1, 2), np.float32)
    assert gaussian_kl(zero, zero) == [0]
    mean, log_variance = np.array([[1.0, -2.0]]), np.log([[0.25, 4.0]])
    expected = 0.5 * (1 + 0.25 - np.log(0.25) - 1) + 0.5 * (4 + 4 - np.log(4) - 1)
    np.testing.assert_allclose(gaussian_kl(mean, log_variance), [expected])


def test_total_variation() -> None:
    balanced = np.array([0, 0, 1, 1], np.int64)
    assert total_variation(balanced, balanced, 3) == 0
    assert total_variation(np.array([2, 2, 2, 2], np.int64), balanced, 3) == 1
    assert total_variation(np.array([0, 0, 0, 1], np.int64), balanced, 3) == pytest.approx(0.25)


def test_mean_distance_agrees_with_scipy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    assert mean_distance(images) == pytest.approx(pdist(images.reshape(20, -1) / 255).mean())


@pytest.mark.parametrize("labelled", [True, False])
def test_diversity_is_one_for_the_data_and_zero_for_a_collapse(labelled: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(200, dtype=np.int64) % 2 if labelled else None
    assert relative_diversity(images, labels, images, labels) == pytest.approx(1)
    # two different images, one a class: a collapse, though not all samples are equal
    collapsed = images[np.zeros(200, np.int64) if labels is None else labels]
    assert relative_diversity(collapsed, labels, images, labels) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_vae_terms_add_up_and_are_ordered(published: Published) -> None:
    dataset = published.dataset
    mean_image = dataset.train.images.mean(axis=0) / 255
    metrics = vae_metrics(published.generator, dataset.test.images, mean_image)
    assert metrics["negative_elbo"] == pytest.approx(metrics["reconstruction_loss"] + metrics["kl_divergence"])
    assert metrics["pixel_entropy"] < metrics["reconstruction_loss"] < metrics["mean_image_loss"]
    assert 0 < metrics["reconstruction_error"] < np.square(dataset.test.images / 255 - mean_image).mean()
    assert metrics == {name: published.generator.manifest.metrics[name] for name in metrics}


@pytest.mark.slow
def test_samples_depend_on_the_seed_alone(published: Published) -> None:
    samples = [sample(published.generator, 5, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    assert balanced_labels(published.generator, 5) is None
