"""From parts to a scorer: statistics fitted on train, ranks on validation, p-values on calibration images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from training.data import Dataset
from training.data.arrays import Array, evenly_spaced
from training.graphs.session import ExportError
from training.graphs.splice import Piece, splice
from training.scorer.anomaly_map import AnomalyMap
from training.scorer.components import Measure, Parts, images_input
from training.scorer.fusion import TailNegLogProb
from training.scorer.head import ScoreHead
from training.scorer.statistics import TWO_SIDED, Statistics

FITTED = 10_000  # most training images for means, covariances and coreset


@dataclass(frozen=True)
class Scorer:
    """The parts, the statistics fitted to their outputs, and the digests of the parts at that time."""

    parts: Parts
    fuse: ScoreHead
    digests: Mapping[str, str]


def fit(parts: Parts, dataset: Dataset, measure: Measure) -> Scorer:
    """Fit everything except the p-values, without images of the calibration or test split.

    Args:
        parts: the networks.
        dataset: its training split gives means and covariances, its validation split the ranks.
        measure: the parts as a graph.
    """
    train = dataset.train.take(evenly_spaced(len(dataset.train), FITTED))
    measured, classes = measure(train.images), 1 if parts.classifier is None else max(1, len(dataset.class_names))
    some = evenly_spaced(len(train), parts.coreset_size)
    labels = train.labels if parts.classifier is not None and train.labels is not None else np.zeros(len(train), int)
    statistics = Statistics(measured, labels, classes, conditional=parts.conditional, coreset=some)
    normal = measure(dataset.validation.images)
    with torch.no_grad():
        values, residual, _ = statistics({name: torch.from_numpy(array) for name, array in normal.items()})
        surprise = TailNegLogProb(values.numpy(), [name in TWO_SIDED for name in statistics.names])
    heat = AnomalyMap(residual.numpy(), normal["defects"])
    fuse = ScoreHead(statistics, surprise, heat, train.images[some], classes=0 if classes == 1 else classes)
    return Scorer(parts, fuse, parts.digests)


def calibrated(scorer: Scorer, scores: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Scorer:
    """`scorer` with p-values from calibration scores [n] and predicted classes [n]."""
    fuse = scorer.fuse
    return replace(
        scorer,
        fuse=ScoreHead(
            *(fuse.statistics, fuse.surprise, fuse.heat, fuse.looks.numpy()),
            scores=scores,
            labels=labels,
            classes=fuse.classes,
        ),
    )


def unmeasured(scorer: Scorer, size: int) -> Scorer:
    """`scorer` with a table of p-values of `size` calibration images that is to be filled in.

    Its values are like no other constant's, because the exporter keeps one of constants that are equal.
    """
    labels = np.zeros(size, np.int64) if scorer.fuse.classes else None
    made = calibrated(scorer, np.zeros(size, np.float32), labels)
    for values in made.fuse.table():
        values.copy_(2**20 + torch.arange(len(values)))
    return made


def filled(traced: onnx.ModelProto, empty: ScoreHead, fuse: ScoreHead) -> onnx.ModelProto:
    """The exported graph of an `unmeasured` scorer's `empty` stage with the table of p-values of `fuse`.

    The exporter gives constants names of its own, so each is found by its values.

    Raises:
        ExportError: the exporter did not keep the table as it was.
    """
    model = onnx.ModelProto()
    model.CopyFrom(traced)
    for name, before, now in zip(("scores", "labels", "counts"), empty.table(), fuse.table(), strict=False):
        found = [tensor for tensor in model.graph.initializer if _holds(tensor, before.numpy())]
        if len(found) != 1:
            raise ExportError(f"score: {len(found)} constants of the exported graph hold the table {name}, not one")
        found[0].CopyFrom(onnx.numpy_helper.from_array(now.numpy(), found[0].name))
    return model


def _holds(tensor: onnx.TensorProto, array: Array) -> bool:
    held = onnx.numpy_helper.to_array(tensor)
    return held.dtype == array.dtype and np.array_equal(held, array)


def assemble(scorer: Scorer, found: list[Piece], fuse: onnx.ModelProto) -> onnx.ModelProto:
    """`score.onnx`: the parts' pieces and the exported `fuse` in one graph.

    Raises:
        ExportError: a part is not the one that the scorer was fitted with, so p-values would not be valid.
    """
    now, then = scorer.parts.digests, scorer.digests
    for role in sorted(now.keys() | then.keys()):
        if now.get(role) != then.get(role):
            raise ExportError(
                f"score: the {role} is {now.get(role)}, but the scorer was calibrated with {then.get(role)}; "
                "calibrate it again: duet train --network scorer"
            )
    outer = {name: name for name in (*scorer.parts.made(), *scorer.fuse.outputs)}
    labelled = ("label",) if scorer.parts.classifier is not None else ()
    inputs = [images_input(scorer.parts.image_shape)]
    return splice([*found, Piece("fuse", fuse, outer)], inputs, [*scorer.fuse.outputs, *labelled])


def constants(scorer: Scorer, dataset: Dataset, calibration: Mapping[str, Array]) -> dict[str, float]:
    """Constants of the manifest: the number of calibration images, and the share of each predicted class."""
    size = len(calibration["score"])
    found = {
        "calibration_size": float(size),
        "fusion_size": float(len(dataset.validation)),
        "smallest_p_value": 1 / (size + 1),
        "residual_q99": 1.0,
    }
    if scorer.fuse.classes:
        shares = np.bincount(calibration["label"], minlength=scorer.fuse.classes) / size
        found |= {f"class_share/{index}": float(share) for index, share in enumerate(shares)}
    return found
