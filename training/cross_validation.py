"""Cross-validation of a recipe's classifier, for data sets whose test split is too small."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from training.data import Dataset, Split
from training.data.copies import first_of_equal
from training.loops.batches import Images
from training.loops.cnn import evaluate, train_cnn
from training.loops.progress import write
from training.recipes import Recipe
from training.run import open_run
from training.train import launch

ORDER = 0  # the folds' seed: the same folds for every training seed
SHOWN = 50  # training images in place of the validation split: nothing is selected by them


def cross_validate(dataset: Dataset, recipe: Recipe, *, folds: int, seed: int) -> list[float]:
    """Accuracy on each of `folds` stratified parts of all images; each network is trained on the other parts.

    Nothing is selected: the recipe must keep the average of its weights after a fixed number of epochs. Temperature and
    prediction sets are not fitted. Images with the same pixels are in one part.

    Args:
        dataset: labelled; its splits are joined.
        recipe: with a CNN whose weights are averaged.
        folds: at least 2.
        seed: of the training.

    Raises:
        ValueError: no labels, no such recipe, or a class of fewer images than folds.
    """
    how = recipe.on(dataset.name).cnn
    if how is None or how.average is None or how.patience is not None:
        raise ValueError(f"recipe {recipe.name} selects an epoch by the held-out part; give --recipe reference")
    splits = (dataset.train, dataset.validation, dataset.calibration, dataset.test)
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([np.empty(0) if split.labels is None else split.labels for split in splits]).astype(int)
    if len(labels) != len(images):
        raise ValueError(f"{dataset.name} has no labels to learn; use labelled data")
    if np.bincount(labels).min() < folds:
        raise ValueError(f"{dataset.name}: a class has fewer than {folds} images; give fewer --folds")
    fabric, accuracies = launch("auto", 1), []
    start = time.process_time()
    how_split = {"n_splits": folds, "shuffle": True, "random_state": ORDER}
    first = first_of_equal(images)
    if len(np.unique(first)) == len(first):
        parts = StratifiedKFold(**how_split).split(images, labels)
    else:  # it gives other folds than the one above, where there are no copies
        parts = StratifiedGroupKFold(**how_split).split(images, labels, groups=first)
    for fold, (fitted, held) in enumerate(parts):
        some = Split(images[fitted][:SHOWN], labels[fitted][:SHOWN])
        data = replace(
            dataset, train=Split(images[fitted], labels[fitted]), validation=some, calibration=some, test=some
        )
        with tempfile.TemporaryDirectory() as scratch:
            run = open_run(Path(scratch), "cnn", {}, resume=False)
            network = train_cnn(fabric, data, how, run, seed=seed)
        error, _ = evaluate(network, Images(Split(images[held], labels[held]), fabric.device))
        accuracies.append(1 - error)
        write(f"fold {fold + 1} of {folds}: accuracy {1 - error:.2%}")
    write(f"{(time.process_time() - start) / 60:.1f} CPU minutes")
    return accuracies
