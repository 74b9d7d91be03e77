"""How a scorer is trained."""

from __future__ import annotations

from dataclasses import dataclass

from training.loops.cnn import CNNRecipe
from training.loops.defects import DefectRecipe
from training.loops.vae import VAERecipe


@dataclass(frozen=True)
class ScorerRecipe:
    """What is trained for a scorer, beside the classifier and the VAE that it is given.

    Args:
        defects: the network that finds what does not belong into its surroundings.
        vae: stands in where no VAE is given.
        views: the classifier of views that stands in where the data have no classes.
        looks: normal images that new ones are compared with.
    """

    defects: DefectRecipe
    vae: VAERecipe
    views: CNNRecipe
    looks: int = 500
