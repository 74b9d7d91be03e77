"""Checks of explanations: deletion and insertion curves, and the correlation with a graph of shuffled weights.

Each map is compared with three maps that do not use the classifier: random numbers, a blob in the middle, and the
distance of a pixel from the background. An explanation that is not better than these explains little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

from services.inference.bundle import Bundle
from services.inference.explanation import occlusion, rise
from training.data.arrays import Array, Images, Labels, philox
from training.evaluation.tables import table
from training.graphs.session import open_graph, run

Map = Callable[[onnxruntime.InferenceSession, Images, Labels], Array]

SHARES = np.linspace(0, 1, 29)  # of the pixels, deleted or inserted
CLEARLY = 2  # standard errors


class Checked(NamedTuple):
    """The results of the checks for one kind of map.

    Args:
        deletion: mean probability of the class [29] while the first pixels of the map are set to background, by SHARES.
        insertion: the same while these pixels are inserted into the background.
        deletion_area: area under `deletion`, and its standard error over images; smaller is better.
        insertion_area: the same of `insertion`; larger is better.
        correlation: mean rank correlation with the map of the same graph with shuffled weights; with 1 the map does not
            depend on the learned weights. None for maps that do not use the graph.
        beats: of the maps that do not use the graph, those that this map beats on both curves by more than CLEARLY
            standard errors of the difference, image by image.
    """

    deletion: Array
    insertion: Array
    deletion_area: tuple[float, float]
    insertion_area: tuple[float, float]
    correlation: float | None
    beats: tuple[str, ...]


def check(bundle: Bundle, images: Images, seed: int = 0) -> dict[str, Checked]:
    """The checks of every map of `images` uint8 [N,C,H,W], explained for their predicted class."""
    path = bundle.graph_path("classify")
    session = open_graph(path)
    labels = run(session, {"images": images})["probabilities"].argmax(axis=1)
    asked = dict(ASKED)
    if any(output.name == "class_activation" for output in session.get_outputs()):
        asked["class activation"] = class_activation
    ignorant = shuffled(path, seed)
    curves, correlations = {}, {}
    for name, explain in (asked | UNASKED).items():
        maps = explain(session, images, labels)
        if name in asked:
            correlations[name] = float(rank_correlation(maps, explain(ignorant, images, labels)).mean())
        curves[name] = causal_curves(session, images, labels, maps)
    areas = {name: (_areas(deletion), _areas(insertion)) for name, (deletion, insertion) in curves.items()}
    return {
        name: Checked(
            deletion.mean(axis=0),
            insertion.mean(axis=0),
            _mean(areas[name][0]),
            _mean(areas[name][1]),
            correlations.get(name),
            tuple(other for other in UNASKED if _better(areas[name], areas[other])),
        )
        for name, (deletion, insertion) in curves.items()
    }


def causal_curves(
    session: onnxruntime.InferenceSession, images: Images, labels: Labels, maps: Array
) -> tuple[Array, Array]:
    """Deletion and insertion curves (V. Petsiuk, A. Das, K. Saenko, "RISE", BMVC 2018, section 4.2).

    Deleted pixels take the image's median per channel, the background of a drawing. Insertion starts from this
    background; the paper starts from a blurred image, but a blurred digit of 28 pixels is still recognised.

    Args:
        session: a classifier's graph.
        images: uint8 [N,C,H,W].
        labels: int64 [N], the classes whose probability is measured.
        maps: [N,H,W], the importance of each pixel.

    Returns:
        Two arrays [N,29], the probability at each of SHARES.
    """
    count, _, height, width = images.shape
    order = np.argsort(-maps.reshape(count, -1), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(height * width)[None], axis=1)
    rank = rank.reshape(count, 1, height, width)
    hidden = np.median(images, axis=(2, 3), keepdims=True).astype(np.uint8)
    deletion, insertion = np.empty((2, count, len(SHARES)))
    for step, share in enumerate(SHARES):
        first = rank < round(share * height * width)
        deleted, inserted = np.where(first, hidden, images), np.where(first, images, hidden)
        for curves, changed in ((deletion, deleted), (insertion, inserted)):
            curves[:, step] = run(session, {"images": changed})["probabilities"][np.arange(count), labels]
    return deletion, insertion


def shuffled(path: Path, seed: int) -> onnxruntime.InferenceSession:
    """The graph at `path` with the entries of every weight tensor in a random order.

    The sanity check of J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018. The weights are shuffled,
    not drawn again, so that they keep their scale.
    """
    model = onnx.load(path)
    generator = philox(seed)
    for weight in model.graph.initializer:
        if len(weight.dims) > 1:
            values = numpy_helper.to_array(weight)
            mixed = generator.permutation(values.ravel()).reshape(values.shape)
            weight.CopyFrom(numpy_helper.from_array(mixed, weight.name))
    with tempfile.TemporaryDirectory(prefix="duet-shuffled-") as directory:
        copy = Path(directory, path.name)
        onnx.save(model, copy)
        return open_graph(copy)


def rank_correlation(first: Array, second: Array) -> Array:
    """Spearman's correlation [N] of maps [N,H,W]; equal pixels share a rank, and a constant map has correlation 0."""
    a, b = (np.stack([_ranks(row) for row in maps.reshape(len(maps), -1)]) for maps in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0))


def _ranks(row: Array) -> Array:
    _, group, counts = np.unique(row, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])


def _areas(curves: Array) -> Array:
    """The area under each of curves [N,29] by the trapezium rule, [N]."""
    return np.asarray((curves[:, 1:] + curves[:, :-1]).mean(axis=1, dtype=np.float64) / 2)


def _mean(values: Array) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _better(ours: tuple[Array, Array], theirs: tuple[Array, Array]) -> bool:
    """Whether the deletion areas [N] are clearly smaller and the insertion areas clearly larger, on the same images."""
    gains = _mean(theirs[0] - ours[0]), _mean(ours[1] - theirs[1])
    return all(gain > CLEARLY * error for gain, error in gains)


def class_activation(session: onnxruntime.InferenceSession, images: Images, labels: Labels) -> Array:
    """The graph's own map of the class, enlarged bilinearly to the image."""
    maps = run(session, {"images": images})["class_activation"][np.arange(len(labels)), labels]
    size = (images.shape[3], images.shape[2])
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in maps])


def _one_by_one(explain: Callable[[Callable[[Array], Array], Array, int], Array]) -> Map:
    def maps(session: onnxruntime.InferenceSession, images: Images, labels: Labels) -> Array:
        def probabilities(masked: Array) -> Array:
            return run(session, {"images": masked})["probabilities"]

        return np.stack(
            [explain(probabilities, image, int(label)) for image, label in zip(images, labels, strict=True)]
        )

    return maps


def _random(session: onnxruntime.InferenceSession, images: Images, labels: Labels) -> Array:
    return philox(0).random((len(images), *images.shape[2:]))


def _centre(session: onnxruntime.InferenceSession, images: Images, labels: Labels) -> Array:
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width]
    distance = ((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2
    return np.broadcast_to(-distance, (len(images), height, width))


def _ink(session: onnxruntime.InferenceSession, images: Images, labels: Labels) -> Array:
    return np.asarray(np.abs(images - np.median(images, axis=(2, 3), keepdims=True)).sum(axis=1))


ASKED: dict[str, Map] = {"occlusion": _one_by_one(occlusion), "RISE": _one_by_one(rise)}
UNASKED: dict[str, Map] = {"ink": _ink, "centre": _centre, "random": _random}


def markdown(checked: dict[str, Checked]) -> str:
    rows = [
        (
            name,
            f"{one.deletion_area[0]:.3f} ± {one.deletion_area[1]:.3f}",
            f"{one.insertion_area[0]:.3f} ± {one.insertion_area[1]:.3f}",
            "" if one.correlation is None else f"{one.correlation:.2f}",
            ", ".join(one.beats) or "none",
        )
        for name, one in checked.items()
    ]
    areas = ("deletion area (less is better)", "insertion area (more is better)")
    return table(("map", *areas, "correlation, shuffled", "beats"), rows)
