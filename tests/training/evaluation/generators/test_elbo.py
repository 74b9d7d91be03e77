from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch

from services.inference.bundle import Bundle
from training.data.arrays import binarised
from training.evaluation.generators.elbo import (
    cross_entropy,
    elbo_metrics,
    gaussian_kl,
    grey_bounds,
    kl_by_class,
    log_bin_mass,
    log_probability,
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


def test_kl_to_the_prior_of_a_class() -> None:
    mean, log_variance = np.array([[1.0, -2.0], [0.5, 0.0]]), np.log([[0.25, 4.0], [1.0, 2.0]])
    centre, factor = np.array([0.5, -1.0]), np.array([[2.0, 0.0], [0.6, 0.5]])
    prior = np.stack([np.zeros(2), centre]), np.stack([np.eye(2), factor])
    first, second = kl_by_class(mean, log_variance, prior, np.array([0, 1]))
    assert first == pytest.approx(gaussian_kl(mean, log_variance)[0])
    q = torch.distributions.MultivariateNormal(torch.tensor(mean[1]), torch.diag(torch.tensor([1.0, 2.0]).double()))
    p = torch.distributions.MultivariateNormal(torch.tensor(centre), scale_tril=torch.tensor(factor))
    assert second == pytest.approx(torch.distributions.kl_divergence(q, p).item())


@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -2.0, 1.0, 4.0])
def test_a_levels_mass_agrees_with_fifty_digits(log_scale: float) -> None:
    """From the centre of a level to a decoder that is sure and wrong, where the mass is below 1e-300."""
    levels, means = (part.flatten() for part in np.meshgrid([0, 1, 100, 128, 254, 255], [0.0, 0.001, 0.39, 0.5, 1.0]))
    scale = np.exp(log_scale)
    x = levels / 255
    found = log_bin_mass((x - means) / scale, np.asarray(1 / 510 / scale), levels == 0, levels == 255)
    with mpmath.workdps(50):

        def exact(level: int, mean: float) -> float:
            above, below = ((mpmath.mpf(level) + side / 2) / 255 - mpmath.mpf(mean) for side in (1, -1))
            if level == 255 or (below > 0 and level):  # in the upper tail, the other side of the same mass
                above, below = -below, -above if level < 255 else -mpmath.inf
            low = 0 if level == 0 or below == -mpmath.inf else 1 / (1 + mpmath.exp(-below / mpmath.mpf(scale)))
            return float(mpmath.log(1 / (1 + mpmath.exp(-above / mpmath.mpf(scale))) - low))

        expected = [exact(int(level), float(mean)) for level, mean in zip(levels, means, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert min(expected) < -30 or log_scale > -3  # the floor that there was, 1e-12, is -27.6


def test_the_masses_of_all_levels_are_one() -> None:
    levels = np.arange(256)
    half = np.asarray(1 / 510 / 0.05)
    masses = np.exp(log_bin_mass((levels / 255 - 0.37) / 0.05, half, levels == 0, levels == 255))
    assert masses.sum() == pytest.approx(1, abs=1e-12)


def test_a_decoder_that_is_sure_and_wrong_has_no_floor() -> None:
    """A floor would make log p(x) larger than it is: no lower bound."""
    manifest = SimpleNamespace(constants={"log_scale/0": -6.0})
    bundle = cast(Bundle, SimpleNamespace(manifest=manifest))
    images, pixels = np.full((1, 1, 2, 2), 255, np.uint8), np.full((1, 1, 2, 2), 0.25, np.float32)
    expected = -4 * (1 - 0.25 - 1 / 510) * np.exp(6)
    assert log_probability(images, pixels, bundle) == pytest.approx([expected], rel=1e-6)


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
