"""What the simulation was compared with, and what of a plan lies beyond."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.capacity import runs
from loadtests.capacity.plan import Assumptions
from loadtests.capacity.runs import Run, Seen

EXTRAPOLATED = "extrapolated"


@dataclass(frozen=True)
class Validity:
    """The range of the measured runs with requests of one size.

    Attributes:
        items: images a request.
        rate: requests a second, the most of all runs.
        replicas: the most of all runs.
        hits: the highest hit ratio of all runs.
        deadline: seconds that clients waited.
    """

    items: int
    rate: float
    replicas: int
    hits: float
    deadline: float

    def beyond(self, rate: float, replicas: int, hits: float, assumed: Assumptions) -> list[str]:
        """What of a plan was not measured; empty: nothing."""
        found = []
        if rate > self.rate:
            found.append(f"more than {self.rate:,.0f} requests/s")
        if replicas > self.replicas:
            found.append(f"more than {self.replicas} replicas")
        if hits > self.hits:
            found.append(f"a hit ratio above {self.hits:.2f}")
        if assumed.deadline != self.deadline:
            found.append(f"a deadline other than {1000 * self.deadline:g} ms")
        if assumed.speed != 1:
            found.append("another core")
        return found


def read(path: Path) -> list[tuple[Run, Seen]]:
    """The runs in a file that `measure` wrote.

    Raises:
        ValueError: they cannot be read.
    """
    try:
        entries: Sequence[Mapping[str, Any]] = json.loads(path.read_text())["runs"]
        return [(Run(**entry["run"]), Seen(**entry["measured"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "`python -m loadtests.capacity measure` writes one"
        raise ValueError(f"--measured {path}: no runs in it ({type(error).__name__}: {error}); {remedy}") from None


def of(measured: Sequence[tuple[Run, Seen]], items: int) -> Validity:
    """The range of the runs with so many images a request; nothing is inside if there are none."""
    chosen = [run for run, _ in measured if run.items == items]
    return Validity(
        items,
        rate=max((run.rate for run in chosen), default=0.0),
        replicas=max((runs.REPLICAS if run.kind == "killed" else 1 for run in chosen), default=0),
        hits=max((hit_ratio(run) for run in chosen), default=0.0),
        deadline=max((run.deadline for run in chosen), default=0.0),
    )


def hit_ratio(run: Run) -> float:
    """The share of requests for an image that was asked for before."""
    images = run.images()
    return 0.0 if images is None else 1 - len(np.unique(images)) / len(images)
