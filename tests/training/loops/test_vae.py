from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from tests.training.loops import conftest
from training.data import Dataset
from training.loops.run import Run
from training.loops.vae import negative_elbo, train_vae


class Fixed(nn.Module):
    """A network with the given outputs."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.outputs


def test_terms_are_those_of_the_distributions() -> None:
    torch.manual_seed(0)
    x, logits = torch.rand(3, 1, 4, 4).round(), torch.randn(3, 1, 4, 4)
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    terms = negative_elbo(Fixed(logits, mean, log_variance), x, torch.zeros(3), 0.0)
    assert terms["reconstruction"].item() == pytest.approx(
        -Bernoulli(logits=logits).log_prob(x).sum().item() / 3, rel=1e-5
    )
    posterior = Normal(mean, (0.5 * log_variance).exp())
    prior = Normal(torch.zeros(()), torch.ones(()))
    assert terms["kl"].item() == pytest.approx(kl_divergence(posterior, prior).sum().item() / 3, rel=1e-5)
    assert terms["loss"] == terms["reconstruction"] + terms["kl"]


def test_the_bound_falls_and_pictures_are_drawn(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a", "vae")
    train_vae(fabric, digits, replace(conftest.VAE, epochs=10, picture_every=5), run, seed=0)
    bounds = [record["validation"]["loss"] for record in run.records()]
    assert bounds[-1] < 0.8 * bounds[0]
    assert sorted(path.name for path in run.pictures.iterdir()) == ["epoch-0005.png", "epoch-0010.png"]
