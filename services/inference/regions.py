"""Connected regions of a heat map: runs of each row, joined by union-find where they touch (8 neighbours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Region:
    """Connected pixels.

    Attributes:
        box: left, top, right, bottom in pixels; right and bottom are the first column and row beyond.
        peak: the highest value in the region.
        area: the number of its pixels.
    """

    box: tuple[int, int, int, int]
    peak: float
    area: int


def regions(heat: np.ndarray, threshold: float, most: int) -> list[Region]:
    """The regions in which a map [H,W] is above `threshold`, largest first, at most `most` of them."""
    rows, starts, ends = _runs(heat > threshold)
    if not len(rows):
        return []
    of_run = np.unique(_joined(rows, starts, ends), return_inverse=True)[1]
    areas = np.bincount(of_run, weights=ends - starts).astype(int)
    flat = np.ascontiguousarray(heat).ravel()
    width = heat.shape[1]
    # The maximum of each run: every second segment of reduceat lies between runs, and the last end may be past the map.
    bounds = np.stack([rows * width + starts, rows * width + ends], axis=1).ravel()
    peaks = np.maximum.reduceat(np.append(flat, -np.inf), bounds)[::2]
    found = []
    for label in np.argsort(-areas, kind="stable")[:most]:
        runs = np.flatnonzero(of_run == label)
        box = (starts[runs].min(), rows[runs[0]], ends[runs].max(), rows[runs[-1]] + 1)
        left, top, right, bottom = map(int, box)
        found.append(Region((left, top, right, bottom), float(peaks[runs].max()), int(areas[label])))
    return found


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and end column (exclusive) of each run of a mask [H,W], in reading order."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def _joined(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[int]:
    """For each run, the first run of its region."""
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    row, start, end = rows.tolist(), starts.tolist(), ends.tolist()
    above = 0  # the first run of the row above that may touch this one or a later one
    for run in range(len(parents)):
        while row[above] < row[run] - 1 or (row[above] == row[run] - 1 and end[above] < start[run]):
            above += 1
        other = above
        while row[other] == row[run] - 1 and start[other] <= end[run]:  # a corner is enough
            one, two = root(other), root(run)
            parents[max(one, two)] = min(one, two)
            other += 1
    return [root(run) for run in range(len(parents))]
