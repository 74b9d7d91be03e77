"""Training of the conditional variational autoencoder."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from training.data import Dataset
from training.loops.batches import Images
from training.loops.minimise import Loss, StepRecipe, minimise
from training.loops.precision import Choice
from training.loops.run import Run
from training.loops.schedule import Schedule
from training.loops.vae import bound_and_terms, gaussian_kl
from training.networks.conditional_vae import BayesClassifier, ConditionalVAE, ConditionalVAEConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLIP = 200.0  # largest norm of the gradient of a sum over pixels; only the first steps reach it


@dataclass(frozen=True)
class ConditionalVAERecipe(StepRecipe):
    """How a conditional VAE is trained.

    Args:
        network: the sizes of the network and the likelihood of its pixels.
        epochs: number of epochs.
        kl_warmup: share of all steps over which the divergence grows to its full weight (C. K. Sønderby et al., "Ladder
            variational autoencoders", NeurIPS 2016, section 2.3).
        iwae_start: share of all steps after which the bound is importance-weighted; 1 for never.
        iwae_samples: draws of z in the importance-weighted bound.
        classification_weight: of the cross-entropy of the class by Bayes' rule, in nats, beside the bound (J. Lasserre
            et al., "Principled hybrids of generative and discriminative models", CVPR 2006). It uses so few images of a
            batch that it costs one more decoding for each image; 0: the loss is only generative.
        picture_every: epochs between pictures.
    """

    network: ConditionalVAEConfig
    _: KW_ONLY
    epochs: int = 40
    learning_rate: float = 1.5e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-4
    kl_warmup: float = 0.06
    iwae_start: float = 1.0
    iwae_samples: int = 5
    classification_weight: float = 0.0
    ema_half_life: float = 88678.47029485
    arithmetic: Choice = "fastest"
    picture_every: int = 5


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


def bound_loss(network: ConditionalVAE, recipe: ConditionalVAERecipe) -> Loss:
    """The negative lower bound on log p(x|y), with the cross-entropy of the class where it has a weight."""
    by_bayes, classified = BayesClassifier(network), max(1, recipe.batch_size // network.classes)

    def loss(model: nn.Module, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        x, weighted = seen(images, network), progress >= recipe.iwae_start
        log_likelihood, *posterior = model(x, labels, recipe.iwae_samples if weighted else 1)
        reconstruction, kl = -log_likelihood.mean(), gaussian_kl(*posterior[1:]).sum(dim=1).mean()
        if weighted:
            total = -weighted_bound(log_likelihood, *posterior).mean()
        else:
            total = reconstruction + min(1.0, (progress + 1e-3) / recipe.kl_warmup) * kl
        if recipe.classification_weight:
            nats = math.sqrt(x[0].numel()) * by_bayes(x[:classified])
            total = total + recipe.classification_weight * F.cross_entropy(nats, labels[:classified])
        return {"loss": total, "reconstruction": reconstruction, "kl": kl}

    return loss


def train_conditional_vae(
    fabric: Fabric, dataset: Dataset, recipe: ConditionalVAERecipe, run: Run, *, seed: int
) -> ConditionalVAE:
    """Maximise a lower bound on log p(x|y); the average of the weights at the end is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape, max(1, len(dataset.class_names)))
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    optimizer = AdamW(network.parameters(), recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
    return minimise(
        *(bound_loss(network, recipe), network, optimizer, recipe),
        fabric=fabric,
        run=run,
        images=training,
        epochs=recipe.epochs,
        seed=seed,
        validate=lambda kept: evaluate(kept, validation, seed),
        draw=lambda kept: draw(kept, validation, seed),
        picture_every=recipe.picture_every,
        clip=CLIP,
    )


def seen(x: Tensor, network: ConditionalVAE) -> Tensor:
    """Pixels in 0..1 in the form that the network's likelihood needs; the draws use torch's global generator."""
    return x.clamp(0, 1).bernoulli() if network.likelihood == "bernoulli" else x


@torch.no_grad()
def evaluate(network: ConditionalVAE, data: Images, seed: int) -> dict[str, float]:
    """The negative evidence lower bound and its terms, nats per image, with draws of z and x from a fixed seed."""
    network.eval()
    torch.manual_seed(seed)
    reconstruction = kl = 0.0
    for images, labels in data.in_order():
        log_likelihood, _, mean, log_variance = network(seen(images, network), labels)
        reconstruction -= log_likelihood.sum().item()
        kl += gaussian_kl(mean, log_variance).sum(dim=1).sum().item()
    return bound_and_terms(reconstruction / len(data), kl / len(data))


@torch.no_grad()
def draw(network: ConditionalVAE, data: Images, seed: int) -> Tensor:
    """Eight images, their reconstructions, and 48 samples, the classes in turn: pixels in 0..1 [64, C, H, W]."""
    network.eval()
    images, labels = data.at(torch.arange(min(8, len(data))))
    torch.manual_seed(seed)
    z = torch.cat([network.encode(images)[0], torch.randn(48, network.latent_size, device=images.device)])
    labels = torch.cat([labels, torch.arange(48, device=images.device) % network.classes])
    return torch.cat([images, network.decode(z, labels).sigmoid()])
