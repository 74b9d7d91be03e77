"""Trains a scorer for each trial of the one-class and the held-out-classes protocols."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.augmentation import Affine, Augmentation, Compose, Cutout, Flip, Shift
from training.export.bundle import export_bundle
from training.export.classifier import export_classifier
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.defects import DefectRecipe
from training.loops.launch import launch
from training.loops.precision import fastest
from training.loops.run import open_run
from training.loops.vae import VAERecipe
from training.networks.defect_unet import DefectUNetConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig
from training.scorer.export import export_scorer
from training.scorer.recipe import ScorerRecipe
from training.scorer.train import train_scorer
from training.studies.anomaly_trials.run import Fit

SEEN: dict[str, Augmentation] = {"fashion-mnist": Compose((Flip(), Shift(2), Cutout(12)))}
DRAWN: Augmentation = Compose((Affine(rotation=0.26, scale=0.12, shear=0.15, shift=0.2), Cutout(8)))

# Like the reference recipe with a fifth of its steps, because there are five or ten trainings.
CNN = CNNRecipe(
    network=ResidualCNNConfig(channels=32),
    epochs=12,
    batch_size=128,
    learning_rate=0.1,
    schedule="cosine",
    optimizer="sgd",
    weight_decay=5e-4,
    ema_half_life=44317.043334335,
    arithmetic="fastest",
    patience=None,
)
SCORER = ScorerRecipe(
    defects=DefectRecipe(DefectUNetConfig(channels=8), steps=600),
    vae=VAERecipe(network=VAEConfig(latent_size=32), epochs=10, learning_rate=2e-3, schedule="cosine", patience=None),
    views=CNNRecipe(
        network=ResidualCNNConfig(channels=32),
        epochs=4,
        learning_rate=0.1,
        schedule="cosine",
        optimizer="sgd",
        weight_decay=5e-4,
        augment=Affine(rotation=0.08, scale=0.05, shift=0.05),
        ema_half_life=8827.8481838756,
        arithmetic="fastest",
        patience=None,
    ),
)
METHOD = "recipes of training/studies/anomaly_trials/recipe.py"


def recipes(images: str) -> dict[str, Any]:
    """All values that a trial with data made from the data set `images` is trained with, for the results' header."""
    return {"cnn": replace(CNN, augment=SEEN.get(images, DRAWN)), "scorer": SCORER, "arithmetic": fastest("cpu")}


def fit_in(scratch: Path, images: str) -> Fit:
    """A training for trials with data made from the data set `images`; its files stay in `scratch` until the next."""
    fabric = launch("cpu", 1)
    cnn = recipes(images)["cnn"]

    def fit(dataset: Dataset, seed: int) -> Bundle:
        shutil.rmtree(scratch, ignore_errors=True)
        classifier = None
        if dataset.class_names:
            run = open_run(scratch, "cnn", {}, resume=False)
            network = train_cnn(fabric, dataset, cnn, run, seed=seed)
            classifier = export_bundle(
                *(export_classifier, network, dataset),
                name="trial-cnn",
                task="classification",
                network="cnn",
                recipe="trial",
                seed=seed,
                directory=scratch / "classifier",
            )
        run = open_run(scratch, "scorer", {}, resume=False)
        given = {"classifier": classifier, "generator": None}
        parts = train_scorer(fabric, dataset, SCORER, run, seed=seed, resume=False, **given)
        return export_bundle(
            *(export_scorer, parts, dataset),
            name="trial-scorer",
            task="anomaly",
            network="scorer",
            recipe="trial",
            seed=seed,
            directory=scratch / "score",
        )

    return fit
