from __future__ import annotations

import numpy as np
import pytest
import torch

from training.evaluation.generators.elbo import gaussian_kl, kl_by_class
from training.networks.class_prior import ClassPrior, fit_prior

RNG = np.random.default_rng(0)
LABELS = np.arange(8000) % 2
CENTRES, FACTORS = np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[[1.0, 0.0], [0.8, 0.3]], [[0.5, 0.0], [-0.2, 2.0]]])
LATENTS = CENTRES[LABELS] + np.einsum("nij,nj->ni", FACTORS[LABELS], RNG.normal(size=(8000, 2)))
SURE = np.full((8000, 2), -9.0, np.float32)  # the log variance of an encoder that is sure of itself


def test_the_moments_of_each_class_are_found() -> None:
    means, factors = fit_prior(LATENTS.astype(np.float32), SURE, LABELS, 2)
    np.testing.assert_allclose(means, CENTRES, atol=0.05)
    np.testing.assert_allclose(factors, FACTORS, atol=0.05)


def test_what_the_encoder_does_not_know_is_spread_too() -> None:
    _, factors = fit_prior(np.zeros((8000, 2), np.float32), np.log([[0.25, 4.0]] * 8000).astype(np.float32), None, 1)
    np.testing.assert_allclose(factors, [np.diag([0.5, 2.0])], atol=0.01)


def test_no_other_gaussian_makes_the_bound_larger() -> None:
    log_variances = RNG.normal(-1, 0.5, size=LATENTS.shape).astype(np.float32)
    means = LATENTS.astype(np.float32)
    prior = fit_prior(means, log_variances, LABELS, 2)
    best = kl_by_class(means, log_variances, prior, LABELS).mean()
    assert best < gaussian_kl(means, log_variances).mean()
    for other in [(prior[0] + 0.1, prior[1]), (prior[0], 1.1 * prior[1]), (prior[0], 0.9 * prior[1])]:
        assert best < kl_by_class(means, log_variances, other, LABELS).mean()


def test_a_class_without_images_keeps_what_the_networks_were_trained_with() -> None:
    means, factors = fit_prior(LATENTS.astype(np.float32), SURE, LABELS, 3)
    np.testing.assert_array_equal(means[2], 0)
    np.testing.assert_array_equal(factors[2], np.eye(2))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_do_not_make_a_class_narrow(count: int) -> None:
    _, [factor] = fit_prior(np.ones((count, 40), np.float32), np.full((count, 40), -8, np.float32), None, 1)
    assert np.linalg.eigvalsh(factor @ factor.T).min() > 0.8


def test_draws_have_these_moments() -> None:
    labels = torch.arange(20_000) % 2
    [drawn] = ClassPrior(CENTRES, FACTORS)(torch.randn(20_000, 2, generator=torch.manual_seed(0)), labels)
    for label in range(2):
        rows = drawn[labels == label].numpy()
        np.testing.assert_allclose(rows.mean(axis=0), CENTRES[label], atol=0.06)
        np.testing.assert_allclose(np.cov(rows.T), FACTORS[label] @ FACTORS[label].T, atol=0.12)


def test_without_classes_there_is_one() -> None:
    noise = torch.randn(3, 2)
    prior = ClassPrior(CENTRES, FACTORS)
    torch.testing.assert_close(prior(noise), prior(noise, torch.zeros(3, dtype=torch.int64)))
