"""Baselines for a CNN, each with its textbook settings; nothing was selected on any split."""

from __future__ import annotations

from training.loops.classifier import CNNRecipe
from training.loops.estimators import LogisticRecipe, SVMRecipe
from training.networks.gru import GRUConfig
from training.recipes.recipe import Recipe

GRU = CNNRecipe(
    network=GRUConfig(),
    epochs=30,
    batch_size=64,
    learning_rate=3e-3,
    schedule="cosine",
    weight_decay=0.01,
    patience=None,
)

BASELINES = Recipe("baselines", {"logistic": LogisticRecipe(), "svm": SVMRecipe(), "gru": GRU})
