"""The time of graphs per image: on one thread, in alternating rounds; the fastest round counts.

Other work on the machine makes rounds slower, never faster, so the minimum depends least on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.arrays import evenly_spaced
from training.graphs.session import open_graph

ROUNDS = 15
ROUND = 0.02  # least seconds of a call in a round


def microseconds(paths: Sequence[Path], images: NDArray[np.uint8], batch: int) -> list[float]:
    """The least µs per image of each classifier at `paths`, in batches of `batch` of `images` [N,C,H,W].

    Args:
        paths: graphs with equal inputs.
        images: repeated if there are fewer than `batch`.
        batch: images in a run.
    """
    feeds = {"images": batch_of(images, batch)}
    sessions = [open_graph(path) for path in paths]
    calls = [lambda session=session: session.run(None, feeds) for session in sessions]
    return [seconds / batch * 1e6 for seconds in fastest(calls)]


def batch_of(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`size` of `images` [N,C,H,W] at equal steps, repeated if there are fewer."""
    return np.resize(images[evenly_spaced(len(images), size)], (size, *images.shape[1:]))


def fastest(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least seconds of each of `calls`."""
    runs = []
    for call in calls:  # the first run allocates
        call()
        start = time.perf_counter()
        call()
        runs.append(max(1, round(ROUND / (time.perf_counter() - start))))
    rounds = np.empty((ROUNDS, len(calls)))
    for row in rounds:
        for index, (call, count) in enumerate(zip(calls, runs, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                call()
            row[index] = (time.perf_counter() - start) / count
    return [float(least) for least in rounds.min(axis=0)]
