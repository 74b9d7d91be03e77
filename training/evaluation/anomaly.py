"""Gate metrics of a scorer: validity of its p-values on normal images, and AUROC against simple anomalies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from services.inference.bundle import Bundle
from training.evaluation.anomalies.defects import blot
from training.evaluation.anomalies.far import Maker, inverted, patch_shuffled, rotated_90, uniform_noise
from training.evaluation.runtime import Array, open_graph, philox, run, spread

Images = NDArray[np.uint8]

ALPHAS = (0.01, 0.05, 0.10)
SCORED = 2000  # most images of each anomaly: the standard error of an AUROC is then below 0.01


def score(bundle: Bundle, images: Images) -> dict[str, Array]:
    """`score` [N] in nats, `p_value` [N], `residual` [N,H,W] of `images` [N,C,H,W]."""
    return run(open_graph(bundle.graph_path("score")), {"images": images})


def metrics(bundle: Bundle, images: Images, p_values: Array, scores: Array, seed: int = 0) -> dict[str, float]:
    """False-positive rates of normal `images` at each alpha, and the AUROC of their scores against each anomaly."""
    # Compared in float32, like p_value: float32(0.05) is above 0.05.
    result = {f"false_positive_rate/{alpha:.2f}": float((p_values <= np.float32(alpha)).mean()) for alpha in ALPHAS}
    chosen = spread(len(images), SCORED)
    for name, anomalies in simple_anomalies(images[chosen], seed).items():
        result[f"auroc/{name}"] = auroc(scores[chosen], score(bundle, anomalies)["score"])
    return result


def auroc(normal: Array, anomalous: Array) -> float:
    """The probability that an anomaly scores above a normal image."""
    is_anomaly = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(is_anomaly, np.concatenate([normal, anomalous])))


def simple_anomalies(images: Images, seed: int = 0) -> dict[str, Images]:
    """Each simple anomaly made from `images` [N,C,H,W], by name; the rotation needs square images."""
    square = images.shape[2] == images.shape[3]
    makers = {name: maker for name, maker in ANOMALIES.items() if square or maker is not rotated_90}
    return {name: np.ascontiguousarray(maker(images, philox(seed))) for name, maker in makers.items()}


def _blotted(images: Images, generator: np.random.Generator) -> Images:
    return blot(images, generator).images


ANOMALIES: dict[str, Maker] = {
    "uniform_noise": uniform_noise,
    "inverted": inverted,
    "patch_shuffled": patch_shuffled,
    "rotated_90": rotated_90,
    "blot": _blotted,
}
