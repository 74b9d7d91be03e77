"""Parity: the difference of an exported graph on ONNX Runtime from the network in PyTorch, and its bounds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.inference.bundle import Parity
from training.data.arrays import Array
from training.export.wrappers import Classify
from training.graphs.session import CHUNK, ExportError, open_graph, run

BATCH_SIZES = (1, 3, 64)

# Absolute and relative tolerance of each output. Sums (`score`) grow with the image, so theirs is mostly relative.
TOLERANCES = {
    "logits": (1e-4, 1e-3),
    "probabilities": (1e-5, 0.0),
    "pixels": (1e-5, 0.0),
    "images": (1 / 255, 0.0),  # one grey level, and see SAME_PIXELS
    "mean": (1e-4, 1e-3),
    "log_variance": (1e-4, 1e-3),
    "latents": (1e-4, 1e-3),
    "residual": (1e-4, 1e-3),
    "score": (1e-3, 1e-4),
    "p_value": (1e-6, 0.0),
    "class_p_value": (1e-6, 0.0),
    "statistics": (1e-3, 1e-3),
    "look_alike": (1 / 255, 0.0),
    "label": (1e-6, 0.0),
    "class_activation": (1e-4, 1e-3),
    "prediction_set": (1e-6, 0.0),
    "log_ratio": (1e-3, 1e-3),
    "log_joint": (1e-2, 1e-4),  # a sum over all pixels
}
LEVELS = ("images", "look_alike")  # outputs in grey levels, whose bounds are shares of 255
GraphT = TypeVar("GraphT", bound=nn.Module)
SAME_PIXELS = 0.999  # share of uint8 pixels that must be equal; rounding may move the rest by one level


def as_shipped(graph: GraphT) -> GraphT:
    """A copy of `graph` that computes like its file: float32, on the CPU, deterministic, without gradients."""
    return copy.deepcopy(graph).cpu().float().eval().requires_grad_(False)


def top1_agreement(graph: Classify, path: Path, images: NDArray[np.uint8]) -> float:
    """The share of `images` [N,C,H,W] that `graph` and the file at `path` put into the same class."""
    session, graph = open_graph(path), as_shipped(graph)
    same = 0
    with torch.no_grad():
        for part in np.array_split(images, -(-len(images) // CHUNK)):
            expected = graph(torch.from_numpy(part))[0].argmax(dim=1).numpy()
            same += int((expected == run(session, {"images": part})["logits"].argmax(axis=1)).sum())
    return same / len(images)


def measure_parity(
    graph: Callable[..., tuple[Tensor, ...]],
    path: Path,
    feeds: Mapping[str, Array],
    recompute_steps: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
) -> Parity:
    """Compare `graph` with the file at `path` at batch 1, 3 and 64.

    An element of output o may differ by atol(o) + rtol(o) |reference|. uint8 images are divided by 255, and 99.9 % of
    all pixels must be equal. The parity is that of the element nearest to its bound. A p-value jumps at each
    calibration score, and a prediction set at its threshold, so their reference is what `recompute_steps`
    computes from the file's own outputs.

    Raises:
        ExportError: with the output, the batch size, the difference and the bound.
    """
    session = open_graph(path)
    names = [output.name for output in session.get_outputs()]
    worst, nearest, agreement = 0.0, (0.0, TOLERANCES[names[0]][0]), []
    for size in BATCH_SIZES:
        part = {name: array[:size] for name, array in feeds.items()}
        with torch.no_grad():
            tensors = graph(*(torch.from_numpy(array) for array in part.values()))
        expected = dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True))
        actual = run(session, part, chunk=size)
        expected |= recompute_steps(actual) if recompute_steps else {}
        for name in names:
            ratio, difference, bound = _compare(name, expected[name], actual[name])
            if not ratio <= 1:
                raise ExportError(
                    f"{path.name}: {name} at batch {size} differs from PyTorch by {difference:.3g}, bound {bound:.3g}"
                )
            if ratio > worst:
                worst, nearest = ratio, (difference, bound)
        if "images" in expected:
            same = float((expected["images"] == actual["images"]).mean())
            if same < SAME_PIXELS:
                raise ExportError(
                    f"{path.name}: {same:.2%} of pixels at batch {size} are equal, bound {SAME_PIXELS:.1%}"
                )
        if "logits" in expected:
            agreement.append(float((expected["logits"].argmax(1) == actual["logits"].argmax(1)).mean()))
    return Parity(
        batch_sizes=BATCH_SIZES,
        max_abs_diff=nearest[0],
        bound=nearest[1],
        top1_agreement=min(agreement) if agreement else None,
    )


def _compare(name: str, expected: Array, actual: Array) -> tuple[float, float, float]:
    """The largest ratio of difference to bound, and that difference and bound; NaN counts as infinite."""
    absolute, relative = TOLERANCES[name]
    scale = 255 if name in LEVELS else 1
    reference = expected.astype(np.float64) / scale
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual.astype(np.float64) / scale - reference)
    difference[~np.isfinite(difference)] = np.inf
    bound = absolute + relative * np.nan_to_num(np.abs(reference), posinf=0.0)
    index = np.unravel_index((difference / bound).argmax(), difference.shape)
    # A tolerance of half a millionth, so that rounding does not put one grey level above one grey level.
    ratio = float(difference[index] / bound[index]) * (1 - 5e-7)
    return ratio, float(difference[index]), float(bound[index])
