"""A learning curve: every method on every number of labels, three times. It can be interrupted and continued."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from services.inference import registry
from training.data import Dataset, Split
from training.data.seen import require_other
from training.export.classifier import export_classifier
from training.export.wrappers import Classify
from training.graphs.session import CHUNK, open_graph
from training.loops.header import difference
from training.loops.header import header as header_of
from training.loops.launch import launch
from training.loops.progress import write
from training.studies.learning_curve.methods import Trial, methods, values
from training.studies.learning_curve.subsets import sizes, subset

SUBSETS = 3
TIMED = (1, 64)  # images in a request
RUNS = 20


class CurveError(ValueError):
    """A curve cannot be continued; the message names the file and the remedy."""


@dataclass(frozen=True)
class Cell:
    """The result of one method on one subset.

    Args:
        method: a name of `methods`.
        labels: images per class.
        seed: of the subset and of the training.
        accuracy: on the whole test split.
        cpu_seconds: of the training, including other networks that it trains.
        graph_bytes: of the exported graph; only for the first subset, because the others are similar.
        microseconds: per image, by images in a request, in ONNX Runtime on one thread; only for the first subset.
    """

    method: str
    labels: int
    seed: int
    accuracy: float
    cpu_seconds: float
    graph_bytes: int | None = None
    microseconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """`header` has everything that the cells depend on, except their own fields."""

    header: dict[str, Any]
    cells: tuple[Cell, ...]


def learning_curve(dataset: Dataset, source: str | None, path: Path) -> Curve:
    """Train the cells that the JSON file at `path` does not have yet, adding each to it as soon as it is measured.

    Args:
        dataset: subsets are taken from its training split; accuracy is measured on its test split.
        source: classifier of other data, NAME or NAME:VERSION; without it nothing is transferred.
        path: created if it does not exist.

    Raises:
        CurveError: the file holds another curve; the message names the first field that differs and both values.
        ValueError: the data have no labels, or `source` does not fit them or may have seen the test images.
        BundleError: `source` is not in the store.
    """
    torch.set_num_threads(1)  # so that seconds are comparable
    source = source and registry.find(source).tag  # with its version: a retrained source makes another curve
    if source:
        require_other(registry.load(source), dataset, trusted=None)
    compared = methods(dataset.name, source)
    header = header_of(
        dataset=dataset.name,
        digest=dataset.digest,
        test=len(dataset.test),
        source=source,
        recipes=values(dataset.name, source),
    )
    curve = read(path) if path.exists() else Curve(header, ())
    if (other := difference(curve.header, header)) is not None:
        raise CurveError(
            f"{path}: holds the curve of {other.field} {other.found!r}, but {other.wanted!r} is asked for; choose "
            "another folder"
        )
    known = {(cell.method, cell.labels, cell.seed) for cell in curve.cells}
    asked = [(size, seed, name) for size in sizes(dataset) for seed in range(SUBSETS) for name in compared]
    fabric = launch("cpu", 1)
    for number, (size, seed, name) in enumerate(asked, 1):
        if (name, size, seed) in known:
            continue
        with tempfile.TemporaryDirectory(prefix="duet-curve-") as scratch:
            trial = Trial(fabric, name, subset(dataset, size, seed), seed, Path(scratch))
            cell = measure(trial, compared[name], size)
        curve = Curve(header, (*curve.cells, cell))
        _save(curve, path)
        write(
            f"{number} of {len(asked)}: {name}, {size} labels per class, subset {seed + 1}: "
            f"{cell.accuracy:.2%} after {cell.cpu_seconds:.1f} CPU seconds"
        )
    return curve


def measure(trial: Trial, method: Callable[[Trial], nn.Module], size: int) -> Cell:
    """Train and test; the network of the first subset is also exported, and its graph is timed."""
    start = time.process_time()
    network = method(trial)
    seconds = time.process_time() - start
    accuracy = accuracy_of(network, trial.data.test)
    cell = Cell(trial.method, size, trial.seed, accuracy, round(seconds, 2))
    if trial.seed:
        return cell
    graphs = export_classifier(network, trial.data, trial.scratch).graphs
    path = trial.scratch / graphs["classify"].file
    return Cell(
        **asdict(cell) | {"graph_bytes": path.stat().st_size, "microseconds": microseconds(path, trial.data.test)}
    )


def accuracy_of(network: nn.Module, test: Split) -> float:
    graph = Classify(network).eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(test.images), CHUNK)
        predicted = torch.cat([graph(part)[0].argmax(dim=1) for part in parts]).numpy()
    return float((predicted == test.labels).mean())


def microseconds(path: Path, test: Split) -> dict[str, float]:
    """The time per image by images in a request, of the fastest run: other programs only make a run slower."""
    session = open_graph(path)
    found = {}
    for size in TIMED:
        images = np.resize(test.images, (size, *test.images.shape[1:]))
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            session.run(None, {"images": images})
            times.append(time.perf_counter() - start)
        found[str(size)] = round(1e6 * min(times) / size, 1)
    return found


def read(path: Path) -> Curve:
    """The curve in the JSON file at `path`, complete or not."""
    raw = json.loads(path.read_text())
    return Curve(raw["header"], tuple(Cell(**cell) for cell in raw["cells"]))


def _save(curve: Curve, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    cells = ",\n  ".join(json.dumps(asdict(cell)) for cell in curve.cells)
    temporary.write_text(f'{{\n "header": {json.dumps(curve.header)},\n "cells": [\n  {cells}\n ]\n}}\n')
    os.replace(temporary, path)
