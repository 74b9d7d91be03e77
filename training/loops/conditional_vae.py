"""Training of the conditional variational autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import Dataset
from training.data.augmentation import Augmentation, unchanged
from training.loops.batches import Images
from training.loops.ema import Average
from training.loops.epochs import Epochs
from training.loops.precision import Choice, choose, lay_out, rounding
from training.loops.run import Run, save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.networks.conditional_vae import BayesClassifier, ConditionalVAE, ConditionalVAEConfig

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

CLIP = 200.0  # largest norm of the gradient of a sum over pixels; only the first steps reach it


@dataclass(frozen=True)
class ConditionalVAERecipe:
    """How a conditional VAE is trained.

    Args:
        network: the sizes of the network and the likelihood of its pixels.
        epochs: number of epochs.
        batch_size: images in a step.
        learning_rate: the peak of the schedule, of Adam with decoupled weight decay.
        schedule: see `learning_rate` in training/loops/schedule.py.
        weight_decay: of all weights.
        warm_up: share of all steps over which the divergence grows to its full weight (C. K. Sønderby et al., "Ladder
            variational autoencoders", NeurIPS 2016, section 2.3).
        weighted_from: share of all steps after which the bound is importance-weighted; 1 for never.
        weighted_samples: draws of z in the importance-weighted bound.
        class_weight: of the cross-entropy of the class by Bayes' rule, in nats, beside the bound (J. Lasserre et al.,
            "Principled hybrids of generative and discriminative models", CVPR 2006). It uses so few images of a batch
            that it costs one more decoding for each image; 0: the loss is only generative.
        augment: changes every training batch.
        average: decay of the moving average of the weights that is validated and kept.
        arithmetic: float32, bfloat16, or fastest: bfloat16 if the processor has instructions for it. Validation is
            float32.
        picture_every: epochs between pictures.
    """

    network: ConditionalVAEConfig
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-4
    warm_up: float = 0.06
    weighted_from: float = 1.0
    weighted_samples: int = 5
    class_weight: float = 0.0
    augment: Augmentation | None = None
    average: float = 0.999
    arithmetic: Choice = "fastest"
    picture_every: int = 5


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats [N] of [N, D] (Kingma and Welling, ICLR 2014, appendix B)."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)


def weighted_bound(log_likelihood: Tensor, z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The bound log (1/S) sum_s p(x|z_s,y) p(z_s) / q(z_s|x) in nats [N], from S draws.

    Source: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, equation 8.

    Args:
        log_likelihood: log p(x|z,y) [S, N].
        z: the draws [S, N, D].
        mean: of q(z|x) [N, D].
        log_variance: of q(z|x) [N, D].
    """
    log_prior = -0.5 * z.square().sum(dim=2)
    log_posterior = -0.5 * ((z - mean).square() / log_variance.exp() + log_variance).sum(dim=2)
    return torch.logsumexp(log_likelihood + log_prior - log_posterior, dim=0) - math.log(len(z))


def train_conditional_vae(
    fabric: Fabric, dataset: Dataset, recipe: ConditionalVAERecipe, run: Run, *, seed: int
) -> ConditionalVAE:
    """Maximise a lower bound on log p(x|y); the average of the weights at the end is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape, max(1, len(dataset.class_names)))
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    arithmetic = choose(fabric, run, recipe.arithmetic)
    if arithmetic == "bfloat16":
        lay_out(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    model, steps = fabric.setup(network, optimizer)
    average = Average(network, recipe.average)
    augment = recipe.augment or unchanged
    by_bayes, told_apart = BayesClassifier(network), max(1, recipe.batch_size // network.classes)
    with Epochs(
        run,
        fabric,
        training,
        state={"network": network, "optimizer": optimizer, "average": average},
        keep=average.network,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=None,
        seed=seed,
    ) as epochs:
        for epoch in epochs:
            model.train()
            for images, labels in epochs.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, epochs.progress))
                x = seen(augment(images), network)
                weighted = epochs.progress >= recipe.weighted_from
                with rounding(fabric.device, arithmetic):
                    log_likelihood, *posterior = model(x, labels, recipe.weighted_samples if weighted else 1)
                    if recipe.class_weight:
                        nats = math.sqrt(x[0].numel()) * by_bayes(x[:told_apart])
                reconstruction, kl = -log_likelihood.mean(), divergence(*posterior[1:]).mean()
                if weighted:
                    loss = -weighted_bound(log_likelihood, *posterior).mean()
                else:
                    loss = reconstruction + min(1.0, (epochs.progress + 1e-3) / recipe.warm_up) * kl
                if recipe.class_weight:
                    loss = loss + recipe.class_weight * F.cross_entropy(nats, labels[:told_apart])
                optimizer.zero_grad()
                fabric.backward(loss)
                fabric.clip_gradients(model, optimizer, max_norm=CLIP)
                steps.step()
                average.update(network)
                epochs.record(loss=loss, reconstruction=reconstruction, kl=kl)
            reconstruction_, kl_ = evaluate(average.network, validation, seed)
            if (epoch + 1) % recipe.picture_every == 0 and fabric.is_global_zero:
                save_grid(
                    run.pictures / f"epoch-{epoch + 1:04d}.png", draw(average.network, validation, seed), columns=8
                )
            epochs.finish(
                {"loss": reconstruction_ + kl_, "reconstruction": reconstruction_, "kl": kl_},
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=None,
            )
    return average.network.cpu().eval()


def seen(x: Tensor, network: ConditionalVAE) -> Tensor:
    """Pixels in 0..1 in the form that the network's likelihood needs; the draws use torch's global generator."""
    return x.clamp(0, 1).bernoulli() if network.likelihood == "bernoulli" else x


@torch.no_grad()
def evaluate(network: ConditionalVAE, data: Images, seed: int) -> tuple[float, float]:
    """The two terms of the negative evidence lower bound, nats per image, with draws of z and x from a fixed seed."""
    network.eval()
    torch.manual_seed(seed)
    reconstruction = kl = 0.0
    for images, labels in data.in_order():
        log_likelihood, _, mean, log_variance = network(seen(images, network), labels)
        reconstruction -= log_likelihood.sum().item()
        kl += divergence(mean, log_variance).sum().item()
    return reconstruction / len(data), kl / len(data)


@torch.no_grad()
def draw(network: ConditionalVAE, data: Images, seed: int) -> Tensor:
    """Eight images, their reconstructions, and 48 samples, the classes in turn: pixels in 0..1 [64, C, H, W]."""
    network.eval()
    images, labels = data.at(torch.arange(min(8, len(data))))
    torch.manual_seed(seed)
    z = torch.cat([network.encode(images)[0], torch.randn(48, network.latent_size, device=images.device)])
    labels = torch.cat([labels, torch.arange(48, device=images.device) % network.classes])
    return torch.cat([images, network.decode(z, labels).sigmoid()])
