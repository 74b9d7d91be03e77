"""Training of the variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from training.data import Dataset
from training.loops.batches import Images
from training.loops.minimise import StepRecipe, minimise
from training.loops.run import Run
from training.networks.vae import VAE, VAEConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class VAERecipe(StepRecipe):
    network: VAEConfig
    epochs: int = 10
    patience: int | None = 3
    picture_every: int = 5


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats of each latent [N, D] (Kingma and Welling, appendix B)."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp())


def negative_elbo(network: nn.Module, x: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    """The negative evidence lower bound and its two terms, in nats an image, means over the batch.

    Reconstruction: number of pixels times the mean binary cross-entropy, with grey values as probabilities. KL: from
    the standard normal prior (D. P. Kingma, M. Welling, ICLR 2014, equation 10 and appendix B).
    """
    logits, mean, log_variance = network(x)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
    kl = gaussian_kl(mean, log_variance).sum() / len(x)
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def train_vae(fabric: Fabric, dataset: Dataset, recipe: VAERecipe, run: Run, *, seed: int) -> VAE:
    """Minimise the negative evidence lower bound with Adam; the best validation bound is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape)
    optimizer = AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    return minimise(
        *(negative_elbo, network, optimizer, recipe),
        fabric=fabric,
        run=run,
        images=training,
        epochs=recipe.epochs,
        patience=recipe.patience,
        seed=seed,
        validate=lambda kept: evaluate(kept, validation, seed),
        draw=lambda kept: draw(kept, validation, seed),
        picture_every=recipe.picture_every,
    )


@torch.no_grad()
def evaluate(network: VAE, data: Images, seed: int) -> dict[str, float]:
    """The negative evidence lower bound and its terms, nats per image, with one draw of z from a fixed seed."""
    network.eval()
    torch.manual_seed(seed)
    reconstruction = kl = 0.0
    for images, labels in data.in_order():
        terms = negative_elbo(network, images, labels, 1.0)
        reconstruction += terms["reconstruction"].item() * len(images)
        kl += terms["kl"].item() * len(images)
    return bound_and_terms(reconstruction / len(data), kl / len(data))


def bound_and_terms(reconstruction: float, kl: float) -> dict[str, float]:
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


@torch.no_grad()
def draw(network: VAE, data: Images, seed: int) -> Tensor:
    """Eight images, their reconstructions, and 48 samples from the prior: pixels in 0..1 [64, C, H, W]."""
    network.eval()
    images, _ = data.at(torch.arange(min(8, len(data))))
    torch.manual_seed(seed)
    z = torch.randn(48, network.latent_size, device=images.device)
    latents = torch.cat([network.encode(images)[0], z])
    return torch.cat([images, network.decode(latents).sigmoid()])
