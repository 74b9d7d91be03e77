from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import logsumexp

from training.metrics.likelihood import Density, log_marginal

WEIGHTS = np.array([[3.0, -2.0, 1.0, 0.5], [-1.0, 2.0, 0.0, 4.0]])  # of two classes, four pixels, one latent


def log_likelihood(image: np.ndarray, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = latents * WEIGHTS[labels]
    return np.where(image > 0, -np.logaddexp(0, -logits), -np.logaddexp(0, logits)).sum(axis=1)


def model(mean: float = 0.2, log_variance: float = 0.1) -> Density:
    def encode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(images), 1), mean), np.full((len(images), 1), log_variance)

    return Density(encode, log_likelihood, 2)


IMAGES = np.array([[0, 255, 255, 0], [255, 0, 255, 255], [0, 0, 0, 0]], np.uint8)


def exact(image: np.ndarray, label: int, mean: float = 0.0, deviation: float = 1.0) -> float:
    """Log p(x|y) by Gauss-Hermite quadrature over the one latent, which is N(mean, deviation^2)."""
    nodes, weights = hermegauss(80)
    values = log_likelihood(image, mean + deviation * nodes[:, None], np.full(len(nodes), label))
    return float(logsumexp(values, b=weights / np.sqrt(2 * np.pi)))


def test_many_draws_reach_the_integral() -> None:
    bounds = model().bounds(IMAGES, 20_000, seed=0)
    expected = [[exact(image, label) for label in range(2)] for image in IMAGES]
    np.testing.assert_allclose(bounds, expected, atol=0.02)
    assert np.exp(logsumexp([exact(x, 0) for x in np.array(np.meshgrid(*[[0, 255]] * 4)).reshape(4, -1).T])) == (
        pytest.approx(1)  # all sixteen images together
    )


def test_each_class_may_have_a_prior_of_its_own() -> None:
    prior = np.array([[0.3], [-0.5]]), np.array([[[0.7]], [[1.2]]])
    bounds = replace(model(log_variance=0.5), prior=prior).bounds(IMAGES, 20_000, seed=0)
    expected = [[exact(image, 0, 0.3, 0.7), exact(image, 1, -0.5, 1.2)] for image in IMAGES]
    np.testing.assert_allclose(bounds, expected, atol=0.02)


@pytest.mark.parametrize("samples", [1, 5, 50])
def test_few_draws_bound_it_from_below_on_average(samples: int) -> None:
    far = model(mean=-1.0, log_variance=-1.0)  # an encoder that is wrong makes the bound loose, not false
    bounds = np.mean([far.bounds(IMAGES, samples, seed=seed) for seed in range(300)], axis=0)
    assert (bounds <= np.array([[exact(x, y) for y in range(2)] for x in IMAGES]) + 0.05).all()


def test_the_bound_rises_with_the_draws() -> None:
    means = [model(-1.0, -1.0).bounds(np.tile(IMAGES, (100, 1)), k, seed=1).mean() for k in (1, 10, 100)]
    assert means == sorted(means)


def test_the_seed_decides_and_other_images_do_not_matter() -> None:
    whole = model().bounds(IMAGES, 30, seed=3)
    np.testing.assert_array_equal(whole[:1], model().bounds(IMAGES[:1], 30, seed=3))
    assert not np.array_equal(whole, model().bounds(IMAGES, 30, seed=4))


def test_marginal_is_the_mean_over_classes() -> None:
    bounds = np.log([[0.2, 0.4], [0.5, 0.5]])
    np.testing.assert_allclose(log_marginal(bounds), np.log([0.3, 0.5]))


def test_classes_of_no_share_are_left_out_from_below() -> None:
    seen: list[int] = []

    def counting(image: np.ndarray, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        seen.extend(labels.tolist())
        return np.where(labels == 0, 0.0, -50.0)

    encode = model().encode
    bounds = Density(encode, counting, 2).bounds(IMAGES[:1], 500, seed=0)
    assert seen.count(0) == 500
    assert seen.count(1) == 10
    assert log_marginal(bounds)[0] == pytest.approx(-np.log(2), abs=0.1)
