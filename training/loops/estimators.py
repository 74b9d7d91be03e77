"""Multinomial logistic regression on pixels: the best that a linear classifier can do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from training.data import Dataset, Split
from training.data.dataset import labels_of
from training.networks.estimator import Scores


@dataclass(frozen=True)
class LogisticRecipe:
    """The inverse strength of the penalty on squared weights."""

    inverse_penalty: float = 1.0


def fit_logistic(dataset: Dataset, recipe: LogisticRecipe) -> Scores:
    """Fit the training split; nothing is random."""
    estimator = LogisticRegression(C=recipe.inverse_penalty, max_iter=2000)
    return Scores(estimator.fit(*rows(dataset.train)), dataset.image_shape)


def rows(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels in 0..1 [N, C * H * W] and labels [N].

    Raises:
        ValueError: the data have no labels.
    """
    return split.images.reshape(len(split), -1).astype(np.float32) / np.float32(255), labels_of(split)


@dataclass(frozen=True)
class SVMRecipe:
    """The penalty C of a misclassified training image; the kernel's width follows from the variance of the pixels."""

    penalty: float = 10.0


def fit_svm(dataset: Dataset, recipe: SVMRecipe) -> Scores:
    """Fit the training split; nothing is random. Time and the size of the model grow with the number of images."""
    estimator = SVC(C=recipe.penalty, kernel="rbf", gamma="scale", break_ties=True, cache_size=500)
    return Scores(estimator.fit(*rows(dataset.train)), dataset.image_shape)
