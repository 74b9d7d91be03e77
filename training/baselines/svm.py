"""A support vector machine with a Gaussian kernel on pixels.

Source: C. Cortes, V. Vapnik, "Support-vector networks", Machine Learning 20 (1995); one against one for more than two
classes, with their votes as scores and their margins to break ties.
"""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.svm import SVC

from training.baselines.estimator import Scores, rows
from training.data import Dataset


@dataclass(frozen=True)
class SVMRecipe:
    """The penalty C of a misclassified training image; the kernel's width follows from the variance of the pixels."""

    penalty: float = 10.0


def fit_svm(dataset: Dataset, recipe: SVMRecipe) -> Scores:
    """Fit the training split; nothing is random. Time and the size of the model grow with the number of images."""
    estimator = SVC(C=recipe.penalty, kernel="rbf", gamma="scale", break_ties=True, cache_size=500)
    return Scores(estimator.fit(*rows(dataset.train)), dataset.image_shape)
