"""Training of the variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import Dataset
from training.data.augmentation import Affine, unchanged
from training.loops.batches import Images
from training.loops.epochs import Epochs
from training.loops.precision import choose
from training.loops.run import Run, save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.networks.vae import VAE, VAEConfig

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class VAERecipe:
    network: VAEConfig
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    augment: Affine | None = None
    patience: int | None = 3
    picture_every: int = 5


def elbo_terms(x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the negative evidence lower bound, in nats an image, means over the batch.

    Reconstruction: number of pixels times the mean binary cross-entropy, with grey values as probabilities. KL: from
    the standard normal prior (D. P. Kingma, M. Welling, ICLR 2014, equation 10 and appendix B).
    """
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(x)
    return reconstruction, kl


def train_vae(fabric: Fabric, dataset: Dataset, recipe: VAERecipe, run: Run, *, seed: int) -> VAE:
    """Minimise the negative evidence lower bound with Adam; the best validation bound is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape)
    choose(fabric, run, "float32")
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    model, steps = fabric.setup(network, optimizer)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    augment = recipe.augment or unchanged
    with Epochs(
        run,
        fabric,
        training,
        state={"network": network, "optimizer": optimizer},
        keep=network,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=recipe.patience,
        seed=seed,
    ) as epochs:
        for epoch in epochs:
            model.train()
            for images, _ in epochs.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, epochs.progress))
                x = augment(images)
                reconstruction, kl = elbo_terms(x, *model(x))
                loss = reconstruction + kl
                optimizer.zero_grad()
                fabric.backward(loss)
                steps.step()
                epochs.record(loss=loss, reconstruction=reconstruction, kl=kl)
            reconstruction_, kl_ = evaluate(network, validation, seed=seed)
            if (epoch + 1) % recipe.picture_every == 0 and fabric.is_global_zero:
                save_grid(run.pictures / f"epoch-{epoch + 1:04d}.png", draw(network, validation, seed=seed), columns=8)
            epochs.finish(
                {"loss": reconstruction_ + kl_, "reconstruction": reconstruction_, "kl": kl_},
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=(reconstruction_ + kl_,),
            )
    return network.cpu().eval()


@torch.no_grad()
def evaluate(network: VAE, data: Images, *, seed: int) -> tuple[float, float]:
    """The two terms of the negative evidence lower bound, nats per image, with one draw of z from a fixed seed."""
    network.eval()
    torch.manual_seed(seed)
    reconstruction = kl = 0.0
    for images, _ in data.in_order():
        terms = elbo_terms(images, *network(images))
        reconstruction += terms[0].item() * len(images)
        kl += terms[1].item() * len(images)
    return reconstruction / len(data), kl / len(data)


@torch.no_grad()
def draw(network: VAE, data: Images, *, seed: int) -> Tensor:
    """Eight images, their reconstructions, and 48 samples from the prior: pixels in 0..1 [64, C, H, W]."""
    network.eval()
    images, _ = data.at(torch.arange(min(8, len(data))))
    torch.manual_seed(seed)
    z = torch.randn(48, network.latent_size, device=images.device)
    latents = torch.cat([network.encode(images)[0], z])
    return torch.cat([images, network.decode(latents).sigmoid()])
