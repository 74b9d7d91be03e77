"""A small part of the digits, and recipes that take about a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from training.data import Dataset, load
from training.data.augmentation import Affine
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.defects import DefectRecipe, train_defects
from training.loops.gan import GANRecipe, train_gan
from training.loops.run import Run, open_run
from training.loops.vae import VAERecipe, train_vae
from training.networks.defect_unet import DefectUNetConfig
from training.networks.gan import GANConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig

Train = Callable[[Run], nn.Module]

CNN = CNNRecipe(
    ResidualCNNConfig(8), epochs=4, batch_size=32, learning_rate=3e-3, schedule="cosine", augment=Affine(shift=0.1)
)
VAE = VAERecipe(VAEConfig(latent_size=4, hidden=64), epochs=4, batch_size=32, picture_every=2)
GAN = GANRecipe(
    GANConfig(latent_size=8, embedding=8, generator_channels=16, discriminator_channels=8),
    epochs=4,
    batch_size=32,
    generator_learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    augment=Affine(scale=0.05, shift=0.1),
    picture_every=2,
)
DEFECTS = DefectRecipe(DefectUNetConfig(4), steps=24, batch_size=32, ema_half_life=210.0, arithmetic="float32")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    whole = load("digits")
    return replace(whole, train=whole.train.take(np.arange(200)), validation=whole.validation.take(np.arange(50)))


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


@pytest.fixture
def trains(digits: Dataset, fabric: Fabric) -> dict[str, Train]:
    return {
        "cnn": lambda run: train_cnn(fabric, digits, CNN, run, seed=0),
        "vae": lambda run: train_vae(fabric, digits, VAE, run, seed=0),
        "gan": lambda run: train_gan(fabric, digits, GAN, run, seed=0),
        "scorer": lambda run: train_defects(fabric, digits, DEFECTS, run, seed=0),
    }


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    def new_run(name: str, network: str = "cnn", *, resume: bool = False) -> Run:
        return open_run(tmp_path / name, network, {"seed": 0}, resume=resume)

    return new_run
