"""Trainings of scorers and their metrics, stored one by one, so that an interrupted run can be continued."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.arrays import Images
from training.graphs.inference import score
from training.loops.header import difference
from training.loops.header import header as header_of
from training.loops.progress import write
from training.metrics.detection import detection_rate, separation

Fit = Callable[[Dataset, int], Bundle]  # trains with data and a seed, and returns the scorer


class TrialsError(ValueError):
    """Trials cannot be continued; the message names the file and the remedy."""


class Task(NamedTuple):
    """The data that a scorer is trained with, and the anomalies that it must find."""

    name: str
    dataset: Dataset
    strange: Images


@dataclass(frozen=True)
class Trial:
    """The result of one training.

    Args:
        name: of its task.
        normal: number of normal test images.
        anomalous: number of anomalous test images.
        auroc: of their scores, with the ends of its 95 % interval.
        low: see `auroc`.
        high: see `auroc`.
        found_1: share of the anomalous images with p <= 0.01.
        false_1: share of the normal images with p <= 0.01.
        false_5: share of the normal images with p <= 0.05.
        seconds: of the training, including other networks that it trains.
    """

    name: str
    normal: int
    anomalous: int
    auroc: float
    low: float
    high: float
    found_1: float
    false_1: float
    false_5: float
    seconds: float


@dataclass(frozen=True)
class Trials:
    """`header` has everything that the trials depend on, except their tasks."""

    header: dict[str, Any]
    done: tuple[Trial, ...]


def run_trials(
    protocol: str,
    dataset: Dataset,
    tasks: Sequence[Task],
    fit: Fit,
    path: Path,
    method: str,
    recipes: Mapping[str, Any] | None = None,
) -> Trials:
    """Run the tasks that are not yet in the JSON file at `path`, and add each to it as soon as it is measured.

    Args:
        protocol: its name.
        dataset: the data from which the tasks are made.
        tasks: in this order; the number of a task is the seed of its training.
        fit: the training.
        path: created if it does not exist.
        method: describes `fit`; trials of another method are not continued.
        recipes: all values that `fit` trains with; trials of other values, or of another version, are not continued.

    Raises:
        TrialsError: the file has other trials; the message names the first field that differs and both values.
    """
    header = header_of(
        protocol=protocol, dataset=dataset.name, digest=dataset.digest, method=method, recipes=recipes or {}
    )
    trials = read(path) if path.exists() else Trials(header, ())
    if (other := difference(trials.header, header)) is not None:
        raise TrialsError(
            f"{path}: holds trials of {other.field} {other.found!r}, but {other.wanted!r} is asked for; choose another "
            "folder"
        )
    known = {trial.name for trial in trials.done}
    for number, task in enumerate(tasks):
        if task.name in known:
            continue
        start = time.perf_counter()
        bundle = fit(task.dataset, number)
        trial = measure(bundle, task, time.perf_counter() - start)
        trials = Trials(header, (*trials.done, trial))
        _save(trials, path)
        write(
            f"{protocol}, {number + 1} of {len(tasks)}: {task.name}: AUROC {trial.auroc:.4f} "
            f"[{trial.low:.4f}, {trial.high:.4f}] after {trial.seconds:.0f} s"
        )
    return trials


def measure(bundle: Bundle, task: Task, seconds: float) -> Trial:
    normal, strange = (score(bundle, images) for images in (task.dataset.test.images, task.strange))
    area, low, high = separation(normal["score"], strange["score"])
    return Trial(
        name=task.name,
        normal=len(normal["score"]),
        anomalous=len(strange["score"]),
        auroc=area,
        low=low,
        high=high,
        found_1=detection_rate(strange["p_value"], 0.01),
        false_1=detection_rate(normal["p_value"], 0.01),
        false_5=detection_rate(normal["p_value"], 0.05),
        seconds=round(seconds, 1),
    )


def read(path: Path) -> Trials:
    """The trials in the JSON file at `path`, complete or not."""
    raw = json.loads(path.read_text())
    return Trials(raw["header"], tuple(Trial(**trial) for trial in raw["trials"]))


def _save(trials: Trials, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    lines = ",\n  ".join(json.dumps(asdict(trial)) for trial in trials.done)
    temporary.write_text(f'{{\n "header": {json.dumps(trials.header)},\n "trials": [\n  {lines}\n ]\n}}\n')
    os.replace(temporary, path)
