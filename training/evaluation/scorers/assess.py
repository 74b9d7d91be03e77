"""Gate metrics of a scorer: validity of its p-values on normal images, and AUROC against simple anomalies."""

from __future__ import annotations

import numpy as np

from services.inference.bundle import Bundle
from training.data.arrays import Array, Images, evenly_spaced
from training.evaluation.shifts.sets import simple_anomalies
from training.graphs.inference import score
from training.metrics.detection import auroc

ALPHAS = (0.01, 0.05, 0.10)
SCORED = 2000  # most images of each anomaly: the standard error of an AUROC is then below 0.01


def metrics(bundle: Bundle, images: Images, p_values: Array, scores: Array, seed: int = 0) -> dict[str, float]:
    """False-positive rates of normal `images` at each alpha, and the AUROC of their scores against each anomaly."""
    # Compared in float32, like p_value: float32(0.05) is above 0.05.
    result = {f"false_positive_rate/{alpha:.2f}": float((p_values <= np.float32(alpha)).mean()) for alpha in ALPHAS}
    chosen = evenly_spaced(len(images), SCORED)
    for name, anomalies in simple_anomalies(images[chosen], seed).items():
        result[f"auroc/{name}"] = auroc(scores[chosen], score(bundle, anomalies)["score"])
    return result


NORMALS = 4  # normal test images beside the anomalies of a heat map
