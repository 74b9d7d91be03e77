"""Multinomial logistic regression on pixels: the best that a linear classifier can do."""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.linear_model import LogisticRegression

from training.baselines.estimator import Scores, rows
from training.data import Dataset


@dataclass(frozen=True)
class LogisticRecipe:
    """The inverse strength of the penalty on squared weights."""

    inverse_penalty: float = 1.0


def fit_logistic(dataset: Dataset, recipe: LogisticRecipe) -> Scores:
    """Fit the training split; nothing is random."""
    estimator = LogisticRegression(C=recipe.inverse_penalty, max_iter=2000)
    return Scores(estimator.fit(*rows(dataset.train)), dataset.image_shape)
