"""The interface of a loaded model for the data plane, for every task."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import ClassVar, Protocol

import numpy as np

from services.inference.bundle import TASKS, Bundle, Task
from services.inference.session import Arrays


class Model(Protocol):
    task: ClassVar[Task]
    bundle: Bundle

    @property
    def operations(self) -> tuple[str, ...]: ...

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Compute one batch; the first axis of every input and output is the batch."""

    def example(self, operation: str) -> Arrays:
        """One valid item (a batch of 1), for the warm-up."""

    @property
    def estimated_operations(self) -> Mapping[str, tuple[int, Arrays]]:
        """Operations that are too slow for the warm-up: how often an item runs the first operation, and its outputs."""


def load_model(bundle: Bundle, *, threads: int) -> Model:
    """Start the ONNX Runtime sessions of a verified bundle."""
    model: Model = resolve_name(TASKS[bundle.manifest.task])(bundle, threads=threads)
    return model
