"""What a row of the table of kinds holds; the rows are in training/kinds.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from services.inference.bundle import Bundle, Gate, Manifest, Task
from training.data import Dataset
from training.evaluation.figures import Picture
from training.export.bundle import LIBRARIES, Export
from training.loops.run import Run

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

Role = Literal["judge", "classifier", "generator"]
Given = Mapping[Role, Bundle | None]  # stored bundles that others are trained with
Metrics = dict[str, float]


class Fit(Protocol):
    """Trains a network: the loop, with what it takes of the `given` bundles. fp32, on the CPU, in eval mode."""

    def __call__(
        self, fabric: Fabric, dataset: Dataset, recipe: Any, run: Run, *, seed: int, resume: bool, given: Given
    ) -> Any: ...


class Chapters(Protocol):
    """Further chapters of a report: Markdown, with pictures written into `out`; `full` takes minutes."""

    def __call__(
        self, bundle: Bundle, dataset: Dataset, out: Path, *, full: bool, data_dir: Path | None
    ) -> list[str]: ...


def no_chapters(bundle: Bundle, dataset: Dataset, out: Path, *, full: bool, data_dir: Path | None) -> list[str]:
    return []


def no_metrics(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> Metrics:
    return {}


@dataclass(frozen=True)
class Product:
    """A bundle that is made of a network.

    Args:
        name: the end of the bundle's name.
        task: decides which service serves it. A classifier is made only of data with classes.
        graphs: the graphs that it has at least; a bundle whose network has no row is known by them.
        export: writes the graphs.
        validate: metrics of a bundle on the validation split, which gates are decided on; the judge may be None.
        assess: metrics on the test split, and pictures written into a directory; the judge may be None.
        gates: the gates of a manifest, by the metrics of the validation split.
        chapters: of the report of `duet evaluate`, after the metrics.
        full_metrics: further metrics with `duet evaluate --full`; the judge may be None.
    """

    name: str
    task: Task
    graphs: tuple[str, ...]
    export: Export
    validate: Callable[[Bundle, Dataset, Bundle | None], Metrics]
    assess: Callable[[Bundle, Dataset, Path, Bundle | None], tuple[Metrics, list[Picture]]]
    gates: Callable[[Manifest, Mapping[str, float]], tuple[Gate, ...]]
    chapters: Chapters = no_chapters
    full_metrics: Callable[[Bundle, Dataset, Bundle | None], Metrics] = no_metrics


@dataclass(frozen=True)
class Kind:
    """A kind of network: how it is trained, and what is made of it.

    Args:
        name: on the command line, in recipes and manifests.
        fit: trains it.
        products: the bundles that are made of it; the first one's card shows the curves of the training.
        labelled: it needs labels.
        judged: a judge measures its samples.
        parts: the roles of stored bundles that it contains; other parts are another training.
        becomes: the roles that its first bundle takes for the networks after it, where no other is given.
        libraries: whose versions a manifest records.
    """

    name: str
    fit: Fit
    products: tuple[Product, ...]
    labelled: bool = False
    judged: bool = False
    parts: tuple[Role, ...] = ()
    becomes: tuple[Role, ...] = ()
    libraries: tuple[str, ...] = LIBRARIES

    def takes(self, role: Role) -> bool:
        """Whether it is trained or measured with the bundle of that role."""
        return role in self.parts or (role == "judge" and self.judged)
