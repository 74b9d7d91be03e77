"""How long graphs take an image: on one thread, in alternating rounds; the fastest round counts.

What slows a round is other work on the machine, never the graph: of all statistics the minimum moves least with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluation.runtime import open_graph, spread

ROUNDS = 15
ROUND = 0.02  # seconds of one graph in one round, at least


def microseconds(paths: Sequence[Path], images: NDArray[np.uint8], batch: int) -> list[float]:
    """The least µs an image of each classifier at `paths`, in batches of `batch` of `images` [N,C,H,W].

    Args:
        paths: graphs of equal input.
        images: they are repeated where they are fewer than `batch`.
        batch: images a run.
    """
    feeds = {"images": np.resize(images[spread(len(images), batch)], (batch, *images.shape[1:]))}
    sessions = [open_graph(path) for path in paths]
    runs = []
    for session in sessions:  # the first run allocates
        session.run(None, feeds)
        start = time.perf_counter()
        session.run(None, feeds)
        runs.append(max(1, round(ROUND / (time.perf_counter() - start))))
    rounds = np.empty((ROUNDS, len(paths)))
    for row in rounds:
        for index, (session, count) in enumerate(zip(sessions, runs, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                session.run(None, feeds)
            row[index] = (time.perf_counter() - start) / count / batch * 1e6
    return [float(fastest) for fastest in rounds.min(axis=0)]
