"""What a scorer costs: the bytes of its graph, and µs an image with the heat map and without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.evaluation.runtime import open_graph
from training.evaluation.speed import batch_of, fastest
from training.evaluation.tables import table

BATCHES = (1, 64)
SCORED = ("score", "p_value")
# Asked for fewer outputs, ONNX Runtime still computes all of them, unless told to stay on the way to those.
WAYS = ("everything", "score and p-value", "score and p-value, and no node beside their path")


class Cost(NamedTuple):
    """Bytes of the graph, and µs an image by way of asking and by batch size, on one thread."""

    graph_bytes: int
    microseconds: Mapping[str, Mapping[int, float]]

    def markdown(self) -> str:
        rows = [(way, *(f"{times[batch]:.1f}" for batch in BATCHES)) for way, times in self.microseconds.items()]
        header = ("computed", *(f"µs an image, batch {batch}" for batch in BATCHES))
        return f"{table(header, rows)}\n\nThe graph has {self.graph_bytes / 1000:,.0f} KB."


def cost(bundle: Bundle, images: NDArray[np.uint8]) -> Cost:
    """Time the score graph of `bundle` on `images` uint8 [N,C,H,W]."""
    path = bundle.graph_path("score")
    session = open_graph(path)
    direct = onnxruntime.RunOptions()
    direct.only_execute_path_to_fetches = True
    times: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    for batch in BATCHES:
        feeds = {"images": batch_of(images, batch)}
        calls = [
            lambda feeds=feeds: session.run(None, feeds),
            lambda feeds=feeds: session.run(SCORED, feeds),
            lambda feeds=feeds: session.run(SCORED, feeds, direct),
        ]
        for way, seconds in zip(WAYS, fastest(calls), strict=True):
            times[way][batch] = seconds / batch * 1e6
    return Cost(path.stat().st_size, times)
