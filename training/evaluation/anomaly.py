"""Is the scorer's p-value valid on normal images, and do simple anomalies stand out?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from services.inference.bundle import Bundle
from training.evaluation.runtime import Array, open_graph, philox, run, spread

Images = NDArray[np.uint8]

ALPHAS = (0.01, 0.05, 0.10)
SCORED = 2000  # images of each anomaly at most: the standard error of an AUROC is then below 0.01
PATCH = 4  # pixels a side


def score(bundle: Bundle, images: Images) -> dict[str, Array]:
    """`score` [N] in nats, `p_value` [N], `residual` [N,H,W] of `images` [N,C,H,W]."""
    return run(open_graph(bundle.graph_path("score")), {"images": images})


def metrics(bundle: Bundle, images: Images, p_values: Array, scores: Array, seed: int = 0) -> dict[str, float]:
    """False-positive rates of normal `images` at each alpha, and the AUROC of their scores against each anomaly."""
    # p_value is float32, and so must alpha be: float32(0.05) is above 0.05.
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


def uniform_noise(images: Images, generator: np.random.Generator) -> Images:
    return generator.integers(0, 256, images.shape, dtype=np.uint8)


def inverted(images: Images, generator: np.random.Generator) -> Images:
    return 255 - images


def rotated_90(images: Images, generator: np.random.Generator) -> Images:
    return np.rot90(images, axes=(2, 3))


def patch_shuffled(images: Images, generator: np.random.Generator) -> Images:
    """Tiles of 4 x 4 pixels in a random order; a remainder at the right or the bottom stays where it is."""
    count, channels, height, width = images.shape
    rows, columns = height // PATCH, width // PATCH
    result = images.copy()
    region = result[:, :, : rows * PATCH, : columns * PATCH]
    tiles = region.reshape(count, channels, rows, PATCH, columns, PATCH).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(count, rows * columns, channels, PATCH, PATCH)
    order = generator.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, None, None, None], axis=1)
    tiles = tiles.reshape(count, rows, columns, channels, PATCH, PATCH).transpose(0, 3, 1, 4, 2, 5)
    region[...] = tiles.reshape(region.shape)
    return result


def blot(images: Images, generator: np.random.Generator) -> Images:
    """A disc a fifth of the image wide at a random place: white where it is dark beneath, black where bright."""
    count, _, height, width = images.shape
    radius = max(1.0, min(height, width) / 10)
    centre_y, centre_x = generator.uniform(0.25, 0.75, (2, count, 1, 1)) * [[[[height]]], [[[width]]]]
    y, x = np.ogrid[:height, :width]
    inside = (np.square(y - centre_y) + np.square(x - centre_x) <= radius**2)[:, None]
    beneath = np.where(inside, images, 0).sum(axis=(1, 2, 3)) / (inside.sum(axis=(1, 2, 3)) * images.shape[1])
    colour = np.where(beneath < 128, 255, 0).astype(np.uint8)[:, None, None, None]
    return np.where(inside, colour, images)


ANOMALIES: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "uniform_noise": uniform_noise,
    "inverted": inverted,
    "patch_shuffled": patch_shuffled,
    "rotated_90": rotated_90,
    "blot": blot,
}
