"""Exported graphs on ONNX Runtime, for the evaluation and the parity check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from training.data.arrays import Array

CHUNK = 128  # images in a run: the activations of a small network fit the last-level cache


def open_graph(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session for a file or its bytes, on one CPU thread, so that sums always have the same order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], chunk: int = CHUNK) -> dict[str, Array]:
    """All outputs by name for `feeds`, arrays of equal first axis N >= 1, computed in chunks of `chunk` rows."""
    names = [output.name for output in session.get_outputs()]
    size = len(next(iter(feeds.values())))
    parts = [
        session.run(names, {name: array[start : start + chunk] for name, array in feeds.items()})
        for start in range(0, size, chunk)
    ]
    return {name: np.concatenate(columns) for name, columns in zip(names, zip(*parts, strict=True), strict=True)}


class ExportError(RuntimeError):
    """A graph cannot be exported, or differs from PyTorch; the message gives the difference and the bound."""
