"""The classification accuracy score: the accuracy of a classifier that is trained on samples only.

Source: S. Ravuri, O. Vinyals, "Classification accuracy score for conditional generative models", NeurIPS 2019.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.graphs.inference import balanced_labels, sample
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.launch import launch
from training.loops.run import open_run
from training.recipes.reference import REFERENCE

SAMPLES = 60_000
STEPS = 4000  # training steps; about five minutes on one core at 28 x 28
METRIC = "classification_accuracy_score"


def classification_accuracy_score(bundle: Bundle, dataset: Dataset, *, seed: int = 0) -> dict[str, float]:
    """Accuracy on real test images of a classifier that is trained on samples only, equally many of each class.

    The classifier is that of the `reference` recipe with 4,000 steps. `METRIC/real` is the accuracy of the same
    classifier trained on the real training images. Empty if the generator does not draw by class.
    """
    count = min(SAMPLES, 60 * len(dataset.train))
    labels = balanced_labels(bundle, count)
    if labels is None:
        return {}
    drawn = replace(dataset, train=Split(sample(bundle, count, labels, seed=seed), labels))
    return {METRIC: _accuracy(drawn, seed), f"{METRIC}/real": _accuracy(dataset, seed)}


def _accuracy(dataset: Dataset, seed: int) -> float:
    """Accuracy on the test split of the classifier trained on the training split."""
    recipe: CNNRecipe = REFERENCE.for_dataset(dataset.name).networks["cnn"]
    if dataset.test.labels is None:
        raise ValueError(f"{METRIC}: {dataset.name} has no labels to compare with; use labelled data")
    epochs = max(1, round(STEPS * recipe.batch_size / len(dataset.train)))
    brief = replace(recipe, epochs=epochs)
    with tempfile.TemporaryDirectory() as scratch:
        fabric = launch("auto", 1)
        network = train_cnn(fabric, dataset, brief, open_run(Path(scratch), "cnn", {}, resume=False), seed=seed)
    right = 0
    with torch.no_grad():
        for images, labels in zip(
            np.array_split(dataset.test.images, max(1, len(dataset.test) // 500)),
            np.array_split(dataset.test.labels, max(1, len(dataset.test) // 500)),
            strict=True,
        ):
            predicted = network(torch.from_numpy(images).float() / 255).argmax(dim=1).numpy()
            right += int((predicted == labels).sum())
    return right / len(dataset.test)
