"""A recipe: decides how each network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from training.loops.classifier import CNNRecipe
from training.loops.conditional_vae import ConditionalVAERecipe
from training.loops.estimators import LogisticRecipe, SVMRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe
from training.scorer.recipe import ScorerRecipe


@dataclass(frozen=True)
class Recipe:
    """How each network is trained; None for a network that the recipe does not have.

    Args:
        name: as on the command line.
        cnn: the classifier.
        vae: the variational autoencoder.
        gan: the conditional GAN.
        cvae: the conditional variational autoencoder, and with it a classifier by Bayes' rule.
        scorer: the anomaly scorer, made from a classifier and a VAE.
        logistic: logistic regression.
        svm: the support vector machine.
        gru: the recurrent classifier.
        per_dataset: recipes that replace this one for certain data sets, by their names.
    """

    name: str
    cnn: CNNRecipe | None = None
    vae: VAERecipe | None = None
    gan: GANRecipe | None = None
    cvae: ConditionalVAERecipe | None = None
    scorer: ScorerRecipe | None = None
    logistic: LogisticRecipe | None = None
    svm: SVMRecipe | None = None
    gru: CNNRecipe | None = None
    per_dataset: Mapping[str, Recipe] = field(default_factory=dict)

    def for_dataset(self, dataset: str) -> Recipe:
        """The recipe for the data set of that name."""
        return self.per_dataset.get(dataset, self)
