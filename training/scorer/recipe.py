"""The recipe of a scorer."""

from __future__ import annotations

from dataclasses import dataclass

from training.loops.classifier import CNNRecipe
from training.loops.defects import DefectRecipe
from training.loops.vae import VAERecipe


@dataclass(frozen=True)
class ScorerRecipe:
    """What is trained for a scorer, in addition to the given classifier and VAE.

    Args:
        defects: the defect network, which finds pixels that do not fit their surroundings.
        vae: trained if no VAE is given.
        views: the classifier of views, trained if the data have no classes.
        coreset_size: number of normal images to which new images are compared.
    """

    defects: DefectRecipe
    vae: VAERecipe
    views: CNNRecipe
    coreset_size: int = 500
