"""The metrics of a scorer: validity of its p-values on normal images, and AUROC against simple anomalies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.arrays import Array, Images, evenly_spaced
from training.evaluation import figures
from training.evaluation.figures import Picture
from training.evaluation.shifts.sets import simple_anomalies
from training.graphs.inference import score
from training.metrics.detection import auroc

ALPHAS = (0.01, 0.05, 0.10)
SCORED = 2000  # most images of each anomaly: the standard error of an AUROC is then below 0.01
NORMALS = 4  # normal test images beside the anomalies of a heat map


def metrics(bundle: Bundle, images: Images, p_values: Array, scores: Array, seed: int = 0) -> dict[str, float]:
    """False-positive rates of normal `images` at each alpha, and the AUROC of their scores against each anomaly."""
    # Compared in float32, like p_value: float32(0.05) is above 0.05.
    result = {f"false_positive_rate/{alpha:.2f}": float((p_values <= np.float32(alpha)).mean()) for alpha in ALPHAS}
    chosen = evenly_spaced(len(images), SCORED)
    for name, anomalies in simple_anomalies(images[chosen], seed).items():
        result[f"auroc/{name}"] = auroc(scores[chosen], score(bundle, anomalies)["score"])
    return result


def validate(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    """Metrics on the validation split, to which the ranks of the statistics were fitted."""
    outputs = score(bundle, dataset.validation.images)
    return metrics(bundle, dataset.validation.images, outputs["p_value"], outputs["score"])


def assess(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics on the test split, and the pictures that were written into `directory`."""
    images = dataset.test.images
    outputs = score(bundle, images)
    measured = metrics(bundle, images, outputs["p_value"], outputs["score"])
    normals = images[evenly_spaced(len(images), NORMALS)]
    anomalies = simple_anomalies(normals[:1])
    shown = np.concatenate([normals, *anomalies.values()])
    scored = score(bundle, shown)
    figures.heat_maps(
        shown,
        scored["residual"],
        scored["p_value"],
        names=[f"normal {i + 1}" for i in range(len(normals))] + [name.replace("_", " ") for name in anomalies],
        scale=bundle.manifest.constants["residual_q99"],
        path=directory / "heat_maps.png",
    )
    figures.p_value_histogram(outputs["p_value"], directory / "p_values.png")
    return measured, [
        Picture("heat_maps.png", "Heat maps of test images, and of anomalies made from the first test image; 1 % of "
        "the pixels of normal images exceed full red."),
        Picture("p_values.png", "p-values of test images; for a valid scorer they are uniform."),
    ]  # fmt: skip
