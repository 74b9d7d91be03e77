from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from training.networks.conditional_vae import BayesClassifier, ConditionalVAE, ConditionalVAEConfig, Likelihood

LEVELS = torch.arange(256) / 255


def network(likelihood: Likelihood = "bernoulli", shape: tuple[int, int, int] = (1, 8, 8)) -> ConditionalVAE:
    torch.manual_seed(0)
    config = ConditionalVAEConfig(latent_size=5, channels=8, neck=4, hidden=16, likelihood=likelihood)
    return config.build(shape, classes=3).eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 16)])
def test_shapes(shape: tuple[int, int, int]) -> None:
    vae, x = network(shape=shape), torch.rand(4, *shape)
    mean, log_variance = vae.encode(x)
    assert mean.shape == log_variance.shape == (4, 5)
    assert vae.decode(mean, torch.zeros(4, dtype=torch.int64)).shape == x.shape
    log_likelihood, z, *_ = vae(x, torch.zeros(4, dtype=torch.int64), 7)
    assert log_likelihood.shape == (7, 4)
    assert z.shape == (7, 4, 5)


def test_sides_that_it_cannot_halve_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 4"):
        network(shape=(1, 10, 8))


def test_draws_belong_to_their_image() -> None:
    vae, x, labels = network(), torch.rand(3, 1, 8, 8), torch.arange(3)
    log_likelihood, z, *_ = vae(x, labels, 2)
    for draw in range(2):
        expected = vae.log_likelihood(x, vae.decode(z[draw], labels))
        torch.testing.assert_close(log_likelihood[draw], expected)


def test_bernoulli_is_the_cross_entropy() -> None:
    vae, x, logits = network(), torch.rand(4, 1, 8, 8), 50 * torch.randn(4, 1, 8, 8)
    expected = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=(1, 2, 3))
    torch.testing.assert_close(vae.log_likelihood(x, logits), expected)


@pytest.mark.parametrize("logit", [-9.0, -1.0, 0.3, 9.0])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_the_logistic_is_a_distribution_over_grey_levels(logit: float, log_scale: float) -> None:
    vae = network("logistic", (1, 4, 4))
    with torch.no_grad():
        vae.log_scale.fill_(log_scale)
        x = LEVELS.reshape(-1, 1, 1, 1)
        probabilities = vae.log_likelihood(x.double(), torch.full_like(x, logit).double()).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)
    assert (probabilities >= 0).all()
    mean = torch.tensor(logit).sigmoid().item()
    assert abs(LEVELS[probabilities[1:-1].argmax() + 1].item() - mean) <= 1 / 255 or probabilities[[0, -1]].max() > 0.3


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_bayes_prefers_the_class_that_explains_the_image(likelihood: Likelihood) -> None:
    vae, x = network(likelihood), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        logits = BayesClassifier(vae)(x)
        mean, _ = vae.encode(x)
        for label in range(3):
            given = vae.log_likelihood(x, vae.decode(mean, torch.full((4,), label)))
            others = (logits[:, label] - logits[:, 0]) * x[0].numel() ** 0.5
            reference = vae.log_likelihood(x, vae.decode(mean, torch.zeros(4, dtype=torch.int64)))
            torch.testing.assert_close(others, given - reference, atol=1e-3, rtol=1e-4)
