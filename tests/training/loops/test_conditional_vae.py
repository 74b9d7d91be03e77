from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from training.data import load
from training.loops.batches import Images
from training.loops.conditional_vae import (
    ConditionalVAERecipe,
    evaluate,
    seen,
    train_conditional_vae,
    weighted_bound,
)
from training.loops.run import Run
from training.loops.vae import gaussian_kl
from training.networks.conditional_vae import BayesClassifier, ConditionalVAEConfig

CONFIG = ConditionalVAEConfig(latent_size=8, channels=8, neck=4, hidden=32)
RECIPE = ConditionalVAERecipe(network=CONFIG, epochs=3, batch_size=64, learning_rate=3e-3, arithmetic="float32")


def test_one_draw_bounds_as_the_evidence_lower_bound_does_on_average() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(1, 4), torch.rand(1, 4)  # wider than the prior: bounded weights
    z = mean + (0.5 * log_variance).exp() * torch.randn(200_000, 1, 4)
    no_likelihood = torch.zeros(200_000, 1)
    each = torch.stack(
        [weighted_bound(no_likelihood[i : i + 1], z[i : i + 1], mean, log_variance) for i in range(2000)]
    )
    # With p(x|z) = 1, the evidence lower bound is -KL, and log p(x) is 0.
    assert each.mean().item() == pytest.approx(-gaussian_kl(mean, log_variance).sum().item(), rel=0.1)
    assert weighted_bound(no_likelihood, z, mean, log_variance).item() == pytest.approx(0, abs=0.1)


def test_divergence_is_zero_at_the_prior_and_known_elsewhere() -> None:
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [[0] * 3] * 2
    expected = 0.5 * (4 + math.e - 1 - 1)
    assert gaussian_kl(torch.tensor([[2.0]]), torch.tensor([[1.0]])).item() == pytest.approx(expected)


def test_binary_networks_see_binary_pixels() -> None:
    x = torch.rand(50, 1, 8, 8)
    assert set(seen(x, CONFIG.build((1, 8, 8), 2)).unique().tolist()) == {0.0, 1.0}
    grey = replace(CONFIG, likelihood="grey").build((1, 8, 8), 2)
    assert torch.equal(seen(x, grey), x)


@pytest.mark.slow
@pytest.mark.parametrize("iwae_start", [1.0, 0.5])
def test_the_bound_rises(iwae_start: float, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    dataset = load("digits")
    validation = Images(dataset.validation, fabric.device)
    torch.manual_seed(0)
    untrained = CONFIG.build(dataset.image_shape, 10)
    recipe = replace(RECIPE, iwae_start=iwae_start)
    trained = train_conditional_vae(fabric, dataset, recipe, new_run("cvae"), seed=0)
    assert evaluate(trained, validation, 0)["loss"] < 0.8 * evaluate(untrained, validation, 0)["loss"]


@pytest.mark.slow
def test_classes_are_told_apart_where_their_cross_entropy_counts(fabric: Fabric, new_run: Callable[..., Run]) -> None:
    dataset = load("digits")
    images, labels = Images(dataset.validation, fabric.device).at(torch.arange(len(dataset.validation)))

    def right(classification_weight: float) -> float:
        recipe = replace(
            RECIPE, network=replace(CONFIG, likelihood="grey"), classification_weight=classification_weight
        )
        trained = train_conditional_vae(fabric, dataset, recipe, new_run(f"cvae-{classification_weight}"), seed=0)
        with torch.no_grad():
            return (BayesClassifier(trained)(images).argmax(dim=1) == labels).float().mean().item()

    assert right(5.0) > right(0.0) + 0.05
