"""Robustness of a classifier to corrupted and attacked images: accuracy, NLL and ECE by kind and strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data.arrays import Array, Images
from training.evaluation.shifts.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from training.evaluation.tables import table
from training.graphs.inference import predict
from training.metrics.calibration import expected_calibration_error, negative_log_likelihood


class Measured(NamedTuple):
    accuracy: float
    nll: float
    ece: float


Rows = dict[str, list[Measured]]  # by kind, one for each strength; the first is of the unchanged images


def under_corruptions(bundle: Bundle, images: Images, labels: NDArray[np.int64], seed: int = 0) -> Rows:
    """Each corruption at severity 0 (none) to 5, by the exported graph, on `images` [N,C,H,W] with `labels` [N]."""
    clean = measure(bundle, images, labels)
    return {
        name: [clean, *(measure(bundle, corrupt(images, name, severity, seed), labels) for severity in SEVERITIES)]
        for name in CORRUPTIONS
    }


def under_attacks(bundle: Bundle, images: Images, labels: NDArray[np.int64]) -> Rows:
    """Each attack at epsilon 0 and those of `attacks.EPSILONS`, made in PyTorch, measured by the exported graph.

    Raises:
        NoGradientError: the graph has an operator without a gradient here.
    """
    from training.evaluation.classifiers import attacks  # noqa: PLC0415  (torch takes seconds to import)
    from training.graphs import gradient  # noqa: PLC0415  (torch takes seconds to import)

    network = gradient.differentiable(bundle.graph_path("classify"), images[:8])
    clean = measure(bundle, images, labels)
    return {
        name: [clean, *(measure(bundle, attack(network, images, labels, e), labels) for e in attacks.EPSILONS)]
        for name, attack in attacks.ATTACKS.items()
    }


def measure(bundle: Bundle, images: Images, labels: NDArray[np.int64]) -> Measured:
    return measure_probabilities(predict(bundle, images)["probabilities"], labels)


def measure_probabilities(probabilities: Array, labels: NDArray[np.int64]) -> Measured:
    return Measured(
        float((probabilities.argmax(axis=1) == labels).mean()),
        negative_log_likelihood(probabilities, labels),
        expected_calibration_error(probabilities, labels),
    )


def markdown(rows: Rows, strength: str, strengths: Sequence[int]) -> str:
    """One table for each measure: kinds in rows, strengths in columns; `strengths` does not contain the 0."""
    formats: Mapping[str, Callable[[Measured], str]] = {
        "accuracy, %": lambda m: f"{m.accuracy:.2%}".rstrip("%"),
        "NLL, nats": lambda m: f"{m.nll:.3g}",
        "ECE, %": lambda m: f"{m.ece:.2%}".rstrip("%"),
    }
    header = [strength, "0", *map(str, strengths)]
    return "\n\n".join(
        f"{title}\n\n" + table(header, [(name.replace("_", " "), *map(show, row)) for name, row in rows.items()])
        for title, show in formats.items()
    )
