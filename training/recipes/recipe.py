"""What a recipe is: one value that decides how each network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from training.loops.cnn import CNNRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe


@dataclass(frozen=True)
class Recipe:
    name: str
    cnn: CNNRecipe
    vae: VAERecipe
    gan: GANRecipe
