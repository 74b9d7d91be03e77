"""What the data plane needs of a loaded model, whatever its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from services.inference.bundle import Bundle
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.scorer import Scorer
from services.inference.session import Arrays


class Model(Protocol):
    bundle: Bundle

    @property
    def operations(self) -> tuple[str, ...]: ...

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Compute one batch: every input and output has the batch as its first axis."""

    def example(self, operation: str) -> Arrays:
        """One valid item (batch of 1), to warm the model up with."""

    @property
    def untried(self) -> Mapping[str, tuple[int, Arrays]]:
        """Operations too slow to be tried at start-up: how often an item runs the first operation, and its outputs."""


def load_model(bundle: Bundle, *, threads: int) -> Classifier | Generator | Scorer:
    """Start the ONNX Runtime sessions of a verified bundle."""
    kinds: dict[str, type[Classifier] | type[Generator] | type[Scorer]] = {
        "classification": Classifier,
        "generation": Generator,
        "anomaly": Scorer,
    }
    return kinds[bundle.manifest.task](bundle, threads=threads)
