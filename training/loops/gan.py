"""Training of the conditional GAN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import Dataset
from training.loops.augmentation import Affine, unchanged
from training.loops.average import Average
from training.loops.batches import Images
from training.loops.epochs import Epochs
from training.loops.pictures import save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.networks.gan import GANConfig, Generator
from training.run import Run


@dataclass(frozen=True)
class GANRecipe:
    """Neither loss measures quality, so that there is no early stopping: the average of the last weights is kept."""

    network: GANConfig
    epochs: int = 5
    batch_size: int = 64
    generator_learning_rate: float = 2e-4
    discriminator_learning_rate: float = 4e-4
    schedule: Schedule = "decay"
    average: float = 0.999
    augment: Affine | None = None
    picture_every: int = 1


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss (J. H. Lim, J. C. Ye, "Geometric GAN", arXiv:1705.02894, section 3.2)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def train_gan(fabric: Fabric, dataset: Dataset, recipe: GANRecipe, run: Run, *, seed: int) -> Generator:
    """Alternate one step of each side with the hinge loss; the average of the generator's weights is returned."""
    torch.manual_seed(seed)
    classes = max(1, len(dataset.class_names))
    generator = recipe.network.build_generator(dataset.image_shape, classes)
    discriminator = recipe.network.build_discriminator(dataset.image_shape, classes)
    betas = (0.0, 0.99)
    generator_optimizer = torch.optim.Adam(generator.parameters(), recipe.generator_learning_rate, betas)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), recipe.discriminator_learning_rate, betas)
    generate, generator_steps = fabric.setup(generator, generator_optimizer)
    discriminate, discriminator_steps = fabric.setup(discriminator, discriminator_optimizer)
    peaks = (
        (generator_optimizer, recipe.generator_learning_rate),
        (discriminator_optimizer, recipe.discriminator_learning_rate),
    )
    average = Average(generator, recipe.average)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
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
        keep=average.network,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=None,
        seed=seed,
    ) as epochs:
        for epoch in epochs:
            generate.train()
            discriminate.train()
            for images, labels in epochs.batches():
                for optimizer, peak in peaks:
                    set_learning_rate(optimizer, learning_rate(recipe.schedule, peak, epochs.progress))
                z = torch.randn(len(images), generator.latent_size, device=images.device)
                fakes = generate(z, labels)

                scores = discriminate(augment(torch.cat([images, fakes.detach()])), labels.repeat(2))
                discriminator_loss = hinge(*scores.chunk(2))
                discriminator_optimizer.zero_grad()
                fabric.backward(discriminator_loss)
                discriminator_steps.step()

                # The bare discriminator, frozen: no gradients of its weights are computed, or shared by processes.
                discriminator.requires_grad_(False)
                generator_loss = -discriminator(augment(fakes), labels).mean()
                generator_optimizer.zero_grad()
                fabric.backward(generator_loss)
                generator_steps.step()
                discriminator.requires_grad_(True)

                average.update(generator)
                epochs.record(discriminator=discriminator_loss, generator=generator_loss)
            if (epoch + 1) % recipe.picture_every == 0 and fabric.is_global_zero:
                save_grid(
                    run.pictures / f"epoch-{epoch + 1:04d}.png", draw(average.network, classes, seed), columns=classes
                )
            epochs.finish(
                {"discriminator": evaluate(average.network, discriminator, validation, seed)},
                learning_rate=generator_optimizer.param_groups[0]["lr"],
                objective=None,
            )
    return average.network.cpu().eval()


@torch.no_grad()
def evaluate(generator: Generator, discriminator: nn.Module, data: Images, seed: int) -> float:
    """The discriminator's loss on unseen images: far above the training loss where it has learnt images by heart."""
    generator.eval()
    discriminator.eval()
    torch.manual_seed(seed)
    total = 0.0
    for images, labels in data.in_order():
        z = torch.randn(len(images), generator.latent_size, device=images.device)
        fakes = generator(z, labels)
        total += hinge(discriminator(images, labels), discriminator(fakes, labels)).item() * len(images)
    return total / len(data)


@torch.no_grad()
def draw(generator: Generator, classes: int, seed: int) -> Tensor:
    """Eight rows of samples, a column a class: pixels in 0..1 [8 * classes, C, H, W]."""
    generator.eval()
    torch.manual_seed(seed)
    device = next(generator.parameters()).device
    z = torch.randn(8 * classes, generator.latent_size, device=device)
    pixels: Tensor = generator(z, torch.arange(classes, device=device).repeat(8))
    return pixels
