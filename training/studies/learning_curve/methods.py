"""The methods that are compared: each trains a classifier on a few labelled images only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from training.data import Dataset, Split
from training.data.augmentation import Affine, Augmentation, Compose, Flip, Shift
from training.data.dataset import joined
from training.export.wrappers import Generate
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.estimators import LogisticRecipe, SVMRecipe, fit_logistic, fit_svm
from training.loops.gan import GANRecipe, train_gan
from training.loops.run import open_run
from training.networks.gan import GANConfig
from training.networks.gru import GRUConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.recipes.transfer import TransferConfig, transfer

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

BATCH = 32
GAN = GANRecipe(
    network=GANConfig(latent_size=32, embedding=16, generator_channels=32, discriminator_channels=16),
    epochs=1,
    batch_size=BATCH,
    generator_learning_rate=2e-3,
    discriminator_learning_rate=2e-3,
    ema_half_life=2206.9620459689,
    augment=Affine(scale=0.05, shift=0.12),
    picture_every=2,
)
WITH_SAMPLES = "CNN, synthetic"
SYNTHETIC = 2000  # images that the GAN draws; each batch is half of them, half real


@dataclass(frozen=True)
class Trial:
    """One training: its device, method, data, seed, and the folder for its files."""

    fabric: Fabric
    method: str
    data: Dataset
    seed: int
    scratch: Path


Method = Callable[[Trial], nn.Module]


def methods(dataset: str, source: str | None) -> dict[str, Method]:
    """The methods of `recipes`, by name, in the order of the report."""
    made: dict[str, Method] = {}
    for name, recipe in recipes(dataset, source).items():
        if isinstance(recipe, LogisticRecipe):
            made[name] = partial(_logistic, recipe=recipe)
        elif isinstance(recipe, SVMRecipe):
            made[name] = partial(_svm, recipe=recipe)
        else:
            made[name] = partial(synthetic if name == WITH_SAMPLES else network, recipe=recipe)
    return made


def values(dataset: str, source: str | None) -> dict[str, Any]:
    """All values that the methods train with, for the header of the results."""
    return {
        "methods": recipes(dataset, source),
        "gan": GAN,
        "synthetic": SYNTHETIC,
        "steps": {str(count): steps(count) for count in (100, 1000, 10_000)},
    }


def recipes(dataset: str, source: str | None) -> dict[str, LogisticRecipe | SVMRecipe | CNNRecipe]:
    """By the name of the method, in the order of the report.

    Args:
        dataset: decides the augmentation: a mirrored shoe is a shoe, a mirrored 3 is not a digit.
        source: classifier of other data to start from; without it nothing is transferred. All CNNs have its sizes.
    """
    cnn = CNNRecipe(
        network=ResidualCNNConfig(channels=24),
        batch_size=BATCH,
        learning_rate=3e-3,
        schedule="cosine",
        weight_decay=0.01,
        ema_half_life=2206.9620459689,
        patience=None,
    )
    started = None if source is None else transfer(cnn, source, frozen=False)
    if started is not None and isinstance(started.network, TransferConfig):
        cnn = replace(cnn, network=started.network.network)
    gru = replace(cnn, network=GRUConfig())
    found: dict[str, LogisticRecipe | SVMRecipe | CNNRecipe] = {
        "logistic regression": LogisticRecipe(),
        "SVM": SVMRecipe(),
        "GRU": gru,
        "CNN": cnn,
        "CNN, augmented": replace(cnn, augment=augmentation(dataset)),
        WITH_SAMPLES: cnn,
    }
    if started is not None:
        found["CNN, transferred"] = started
        found["CNN, transferred and augmented"] = replace(started, augment=augmentation(dataset))
    return found


def augmentation(dataset: str) -> Augmentation:
    if dataset == "fashion-mnist":
        return Compose((Flip(), Shift(2)))
    return Affine(rotation=0.17, scale=0.1, shear=0.1, shift=0.15)


def steps(images: int) -> int:
    """Training steps for so many images: 200 for a hundred, 632 for ten thousand."""
    return int(200 * math.pow(images / 100, 0.25))


def _logistic(trial: Trial, recipe: LogisticRecipe) -> nn.Module:
    return fit_logistic(trial.data, recipe)


def _svm(trial: Trial, recipe: SVMRecipe) -> nn.Module:
    return fit_svm(trial.data, recipe)


def network(trial: Trial, recipe: CNNRecipe) -> nn.Module:
    """A network after a number of steps that grows slowly with the number of images."""
    count = BATCH * steps(len(trial.data.train))
    return _train(trial, _repeated(trial.data.train, count), recipe)


def synthetic(trial: Trial, recipe: CNNRecipe) -> nn.Module:
    """The network, on batches that are half real and half drawn by a GAN, which is trained on the same few images."""
    real = trial.data.train
    count = BATCH * steps(len(real))
    drawn = draw(trial, 2 * count)
    return _train(trial, joined(_repeated(real, count // 2), _repeated(drawn, count // 2)), recipe)


def draw(trial: Trial, count: int) -> Split:
    """Samples of a GAN after `count` training images; the few images are repeated."""
    run = open_run(trial.scratch, f"{trial.method}, its GAN", {}, resume=False)
    seen = replace(trial.data, train=_repeated(trial.data.train, count))
    generator = train_gan(trial.fabric, seen, GAN, run, seed=trial.seed).generator
    torch.manual_seed(trial.seed)
    latents = torch.randn(SYNTHETIC, generator.latent_size)
    labels = torch.arange(SYNTHETIC) % len(trial.data.class_names)
    with torch.no_grad():
        images = Generate(generator)(latents, labels)[0]
    return Split(images.numpy(), labels.numpy())


def _train(trial: Trial, seen: Split, recipe: CNNRecipe) -> nn.Module:
    """One epoch of `seen` images, with repetitions."""
    run = open_run(trial.scratch, trial.method, {}, resume=False)
    return train_cnn(trial.fabric, replace(trial.data, train=seen), replace(recipe, epochs=1), run, seed=trial.seed)


def _repeated(split: Split, count: int) -> Split:
    return split.take(np.resize(np.arange(len(split)), count))
