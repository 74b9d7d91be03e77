"""The cost of a scorer: the bytes of its graph, and µs per image with the heat map and without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.evaluation.tables import table
from training.graphs.session import open_graph
from training.graphs.speed import batch_of, fastest

BATCHES = (1, 64)
SCORED = ("score", "p_value")
WAYS = ("all outputs", "score and p-value requested", "a graph of score and p-value only")


class Cost(NamedTuple):
    """Bytes of the graph, and µs per image by requested outputs and by batch size, on one thread."""

    graph_bytes: int
    microseconds: Mapping[str, Mapping[int, float]]

    def markdown(self) -> str:
        rows = [(way, *(f"{times[batch]:.1f}" for batch in BATCHES)) for way, times in self.microseconds.items()]
        header = ("computed", *(f"µs per image, batch {batch}" for batch in BATCHES))
        return f"{table(header, rows)}\n\nThe graph has {self.graph_bytes / 1000:,.0f} KB."


def cost(bundle: Bundle, images: NDArray[np.uint8]) -> Cost:
    """Time the score graph of `bundle` on `images` uint8 [N,C,H,W].

    If only some outputs are requested, ONNX Runtime still computes all of them, but copies fewer. The cost of the heat
    map and the other outputs is the difference from a graph without them.
    """
    path = bundle.graph_path("score")
    session, bare = open_graph(path), open_graph(only(path, SCORED))
    times: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for batch in BATCHES:
        feeds = {"images": batch_of(images, batch)}
        calls = [
            lambda feeds=feeds: session.run(None, feeds),
            lambda feeds=feeds: session.run(SCORED, feeds),
            lambda feeds=feeds: bare.run(None, feeds),
        ]
        for way, seconds in zip(WAYS, fastest(calls), strict=True):
            times[way][batch] = seconds / batch * 1e6
    return Cost(path.stat().st_size, times)


def only(path: Path, outputs: Sequence[str]) -> bytes:
    """The graph at `path` with only `outputs`: when ONNX Runtime loads a graph, it drops nodes that no output needs."""
    model = onnx.load(path)
    kept = [output for output in model.graph.output if output.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return bytes(model.SerializeToString())
