"""The metrics of a classifier's graph, and pictures of its confusions and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.arrays import Array
from training.evaluation import figures
from training.evaluation.compatibility import EvaluationError
from training.evaluation.figures import Picture
from training.graphs.inference import predict
from training.metrics import calibration, classification, conformal


def validate(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    """Metrics on the validation split, which also fitted the temperature: no gate uses NLL and calibration error."""
    return _metrics(bundle, dataset.validation, predict(bundle, dataset.validation.images))


def assess(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics on the test split, and the pictures that were written into `directory`."""
    outputs = predict(bundle, dataset.test.images)
    metrics = _metrics(bundle, dataset.test, outputs)
    probabilities, labels = outputs["probabilities"], _labels(bundle, dataset.test)
    counts = classification.confusion(probabilities, labels)
    figures.confusion_matrix(counts, dataset.class_names, directory / "confusion_matrix.png")
    figures.reliability_diagram(*calibration.reliability(probabilities, labels), directory / "reliability.png")
    return metrics, [
        Picture("confusion_matrix.png", "Confusion matrix: true classes in rows, predicted classes in columns."),
        Picture("reliability.png", "Reliability: accuracy over confidence. Calibrated probabilities lie on the line. "
        "The lower panel shows the number of images at each confidence."),
    ]  # fmt: skip


def _metrics(bundle: Bundle, split: Split, outputs: Mapping[str, Array]) -> dict[str, float]:
    """The metrics of the graph's outputs for a split."""
    labels = _labels(bundle, split)
    metrics = classification.metrics(outputs["probabilities"], labels, bundle.manifest.class_names)
    if "prediction_set" in outputs:
        metrics |= conformal.set_metrics(outputs["prediction_set"], labels)
    if "temperature" in bundle.manifest.constants:
        metrics["temperature"] = bundle.manifest.constants["temperature"]
    return metrics


def _labels(bundle: Bundle, split: Split) -> NDArray[np.int64]:
    if split.labels is None:
        raise EvaluationError(f"{bundle.name}: the data have no labels to compare with; give labelled data")
    return split.labels
