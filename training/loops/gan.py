"""Training of the conditional GAN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from training.data import Dataset
from training.data.augmentation import Augmentation, unchanged
from training.loops.batches import Images
from training.loops.ema import ExponentialMovingAverage
from training.loops.epochs import Epochs
from training.loops.precision import Choice, autocast, choose_dtype, to_memory_format
from training.loops.progress import write
from training.loops.run import Run, save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.metrics.samples import collapsed
from training.networks.gan import GAN, Discriminator, GANConfig, Generator

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHUNK = 500  # samples drawn at once
LAZY = 8  # the gradient penalty is computed every so many steps, with the weight of all of them


@dataclass(frozen=True)
class GANRecipe:
    """How a GAN is trained. The losses do not measure quality: with a judge the best epoch is kept, else the last.

    Args:
        network: the sizes of the networks.
        epochs: most epochs.
        batch_size: images in a step.
        generator_learning_rate, discriminator_learning_rate: the peaks of the schedule, of Adam.
        schedule: see `learning_rate` in training/loops/schedule.py.
        loss: see `discriminator_loss`.
        penalty: gamma, the weight of the penalty on the discriminator's gradients by its images (R1 and R2), for
            networks without spectral norm; 0 for none.
        ema_half_life: in images, of the moving average of the generator's weights, which is judged and kept.
        augment: changes the discriminator's images, real and drawn.
        arithmetic: float32, bfloat16, or fastest: bfloat16 if the processor has instructions for it.
        patience: epochs without a better judgement before training stops.
        picture_every: epochs between pictures, and between judgements.
    """

    network: GANConfig
    epochs: int = 5
    batch_size: int = 64
    generator_learning_rate: float = 2e-4
    discriminator_learning_rate: float = 4e-4
    schedule: Schedule = "decay"
    loss: Loss = "hinge"
    penalty: float = 0.0
    ema_half_life: float = 44339.235147424
    augment: Augmentation | None = None
    arithmetic: Choice = "float32"
    patience: int | None = None
    picture_every: int = 1


class Monitor(Protocol):
    """Measures samples of the classes `labels`: `frechet_distance`, and what `collapsed` needs."""

    labels: NDArray[np.int64]

    def __call__(self, samples: NDArray[np.uint8]) -> dict[str, float]: ...


def train_gan(
    fabric: Fabric, dataset: Dataset, recipe: GANRecipe, run: Run, *, seed: int, monitor: Monitor | None = None
) -> GAN:
    """Alternate one step of each network; the average of the generator's weights is kept.

    With a monitor, which only the first process needs, it is the average of the epoch whose samples have the smallest
    Fréchet distance to validation images, without collapsed epochs. Without one it is the average of the last epoch.
    """
    torch.manual_seed(seed)
    classes = max(1, len(dataset.class_names))
    generator = recipe.network.build_generator(dataset.image_shape, classes)
    discriminator = recipe.network.build_discriminator(dataset.image_shape, classes)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    arithmetic = choose_dtype(fabric, run, recipe.arithmetic)
    if arithmetic == "bfloat16":
        to_memory_format(generator)
        to_memory_format(discriminator)
    betas = (0.0, 0.99)
    generator_optimizer = torch.optim.Adam(generator.parameters(), recipe.generator_learning_rate, betas)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), recipe.discriminator_learning_rate, betas)
    generate, generator_steps = fabric.setup(generator, generator_optimizer)
    discriminate, discriminator_steps = fabric.setup(discriminator, discriminator_optimizer)
    peaks = (
        (generator_optimizer, recipe.generator_learning_rate),
        (discriminator_optimizer, recipe.discriminator_learning_rate),
    )
    average = ExponentialMovingAverage(generator, half_life=recipe.ema_half_life, batch_size=recipe.batch_size)
    trained = GAN(cast(Generator, average.module), discriminator)
    augment = recipe.augment or unchanged
    with Epochs(
        run,
        fabric,
        training,
        state={
            "generator": generator,
            "discriminator": discriminator,
            "generator_optimizer": generator_optimizer,
            "discriminator_optimizer": discriminator_optimizer,
            "average": average,
        },
        keep=trained,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=recipe.patience,
        seed=seed,
    ) as epochs:
        for epoch in epochs:
            generate.train()
            discriminate.train()
            for images, labels in epochs.batches():
                for optimizer, peak in peaks:
                    set_learning_rate(optimizer, learning_rate(recipe.schedule, peak, epochs.progress))
                z = torch.randn(len(images), generator.latent_size, device=images.device)
                with autocast(fabric.device, arithmetic):
                    fakes = generate(z, labels).float()
                    both = augment(torch.cat([images, fakes.detach()]))
                    penalised = recipe.penalty > 0 and epochs.step % LAZY == 0
                    scores = score(discriminate, both.requires_grad_(penalised), labels.repeat(2))
                d_loss = discriminator_loss(recipe.loss, *scores.chunk(2))
                # Half of gamma on real images and half on fakes: the mean over both, times gamma.
                penalty = LAZY * recipe.penalty * gradient_penalty(scores, both) if penalised else 0.0
                discriminator_optimizer.zero_grad()
                fabric.backward(d_loss + penalty)
                discriminator_steps.step()

                # The frozen discriminator without its wrapper, so that gradients of its weights are not computed.
                discriminator.requires_grad_(False)
                with autocast(fabric.device, arithmetic):
                    fake = score(discriminator, augment(fakes), labels)
                    real = score(discriminator, augment(images), labels) if recipe.loss == "relativistic" else None
                g_loss = generator_loss(recipe.loss, real, fake)
                generator_optimizer.zero_grad()
                fabric.backward(g_loss)
                generator_steps.step()
                discriminator.requires_grad_(True)

                average.update_parameters(generator)
                epochs.record(discriminator=d_loss, generator=g_loss)
            seen = {}
            if (epoch + 1) % recipe.picture_every == 0 and fabric.is_global_zero:
                seen = draw_and_judge(
                    trained.generator, classes, monitor, run.pictures / f"epoch-{epoch + 1:04d}.png", seed
                )
            epochs.finish(
                {"discriminator": evaluate(trained.generator, discriminator, validation, recipe.loss, seed), **seen},
                learning_rate=generator_optimizer.param_groups[0]["lr"],
                objective=(float(collapsed(seen)), seen["frechet_distance"]) if seen else None,
            )
    return trained.cpu().eval()


def score(discriminator: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The discriminator's scores [N]; spectral norms are estimated once a call, in float32 whatever the arithmetic."""
    with parametrize.cached():
        with torch.autocast(images.device.type, enabled=False):
            for module in discriminator.modules():
                if parametrize.is_parametrized(module):
                    module.weight  # noqa: B018  (computed and kept)
        scores: Tensor = discriminator(images, labels)
    return scores.float()


@torch.no_grad()
def evaluate(generator: Generator, discriminator: Discriminator, data: Images, loss: Loss, seed: int) -> float:
    """The discriminator's loss on unseen images: far above the training loss if it has memorised images."""
    generator.eval()
    discriminator.eval()
    torch.manual_seed(seed)
    total = 0.0
    for images, labels in data.in_order():
        z = torch.randn(len(images), generator.latent_size, device=images.device)
        fakes = generator(z, labels)
        scores = discriminator(images, labels), discriminator(fakes, labels)
        total += discriminator_loss(loss, *scores).item() * len(images)
    return total / len(data)


@torch.no_grad()
def sample(generator: Generator, labels: Tensor, seed: int) -> Tensor:
    """One sample of each of the labels: images uint8 [N, C, H, W] on the CPU."""
    generator.eval()
    torch.manual_seed(seed)
    device = next(generator.parameters()).device
    z = torch.randn(len(labels), generator.latent_size)
    parts = [
        generator(z[start : start + CHUNK].to(device), labels[start : start + CHUNK].to(device))
        for start in range(0, len(labels), CHUNK)
    ]
    return (torch.cat(parts).clamp(0, 1) * 255).round().byte().cpu()


def draw_and_judge(
    generator: Generator, classes: int, monitor: Monitor | None, picture: Path, seed: int
) -> dict[str, float]:
    """Draw eight samples of each class, one column for each, into `picture`; returns the metrics of many more."""
    shown = sample(generator, torch.arange(classes).repeat(8), seed)
    save_grid(picture, shown / 255, columns=classes)
    if monitor is None:
        return {}
    seen = monitor(sample(generator, torch.from_numpy(monitor.labels), seed).numpy())
    if collapsed(seen):
        write(f"{picture.stem}: the generator has collapsed; the best earlier checkpoint is kept")
    return seen


Loss = Literal["hinge", "relativistic"]


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from the scores [N] of real images and fakes.

    hinge (J. H. Lim, J. C. Ye, "Geometric GAN", arXiv:1705.02894, section 3.2): real ones above 1, fakes below -1.
    relativistic (A. Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019): each real image above the
    fake of the same class at the same position.
    """
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(fake - real).mean()


def generator_loss(loss: Loss, real: Tensor | None, fake: Tensor) -> Tensor:
    """The generator's loss from the scores [N] of fakes; the relativistic loss also needs those of real images."""
    return -fake.mean() if real is None or loss == "hinge" else F.softplus(real - fake).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Mean squared norm of the gradients of the scores [N] by their images [N,C,H,W].

    On real images it is R1 (L. Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018,
    equation 9), on fakes R2; a relativistic game needs both (Y. Huang et al., "The GAN is dead; long live the GAN!",
    NeurIPS 2024, section 2.2).
    """
    (gradients,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradients.square().sum(dim=(1, 2, 3)).mean()
