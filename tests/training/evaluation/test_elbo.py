from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from training.evaluation.elbo import binarised, cross_entropy, elbo_metrics, gaussian_kl, grey_bounds, kl_by_class

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


def test_kl_to_the_prior_of_a_class() -> None:
    mean, log_variance = np.array([[1.0, -2.0], [0.5, 0.0]]), np.log([[0.25, 4.0], [1.0, 2.0]])
    centre, factor = np.array([0.5, -1.0]), np.array([[2.0, 0.0], [0.6, 0.5]])
    prior = np.stack([np.zeros(2), centre]), np.stack([np.eye(2), factor])
    first, second = kl_by_class(mean, log_variance, prior, np.array([0, 1]))
    assert first == pytest.approx(gaussian_kl(mean, log_variance)[0])
    q = torch.distributions.MultivariateNormal(torch.tensor(mean[1]), torch.diag(torch.tensor([1.0, 2.0]).double()))
    p = torch.distributions.MultivariateNormal(torch.tensor(centre), scale_tril=torch.tensor(factor))
    assert second == pytest.approx(torch.distributions.kl_divergence(q, p).item())


def test_binarised_pixels_follow_their_grey_values() -> None:
    images = np.full((4000, 1, 2, 2), 64, np.uint8)
    drawn = binarised(images, 0)
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn > 0).mean() == pytest.approx(64 / 255, abs=0.01)
    assert np.array_equal(drawn, binarised(images, 0))


@pytest.mark.slow
def test_vae_terms_add_up_and_are_ordered(published: Published) -> None:
    dataset = published.dataset
    mean_image = dataset.train.images.mean(axis=0) / 255
    metrics = elbo_metrics(published.generator, dataset.test.images)
    metrics |= grey_bounds(dataset.test.images, mean_image)
    assert metrics["negative_elbo"] == pytest.approx(metrics["reconstruction_loss"] + metrics["kl_divergence"])
    assert metrics["pixel_entropy"] < metrics["reconstruction_loss"] < metrics["mean_image_loss"]
    assert 0 < metrics["reconstruction_error"] < np.square(dataset.test.images / 255 - mean_image).mean()
    assert metrics == {name: published.generator.manifest.metrics[name] for name in metrics}
