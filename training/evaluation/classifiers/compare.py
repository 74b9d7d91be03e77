"""Two classifiers side by side on the same test images: accuracy, size, speed, and McNemar's test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation.classifiers.robustness import Measured, measure_probabilities
from training.evaluation.compatibility import EvaluationError, require_same
from training.evaluation.tables import table
from training.graphs.inference import predict
from training.graphs.speed import microseconds
from training.metrics.classification import mcnemar

Role = Literal["test", "validation"]

ALPHA = 0.05
BATCHES = (1, 64)


@dataclass(frozen=True)
class Side:
    """One of the two: its measured quality, size and speed."""

    name: str
    measured: Measured
    graph_bytes: int
    microseconds: Mapping[int, float]  # an image, by batch size


@dataclass(frozen=True)
class Comparison:
    """Two classifiers and their agreement.

    Args:
        first: one classifier.
        second: the other.
        images: their number.
        agreement: the share of images that both put into the same class, right or wrong.
        only_first: images that the first alone has right.
        only_second: images that the second alone has right.
        p_value: of McNemar's test.
        role: the split of the images.
    """

    first: Side
    second: Side
    images: int
    agreement: float
    only_first: int
    only_second: int
    p_value: float
    role: Role = "test"

    @property
    def verdict(self) -> str:
        """The result of McNemar's test, in a sentence."""
        counts = f"{self.only_first} images right by {self.first.name} alone, {self.only_second} by {self.second.name}"
        p = f"McNemar's p = {self.p_value:.2g}"
        if not self.only_first + self.only_second:
            return f"Both are right and wrong on the same images: the {self.role} set shows no difference between them."
        if self.p_value >= ALPHA:
            return (
                f"No significant difference ({counts}; {p}): if both were equally accurate, a split of these images "
                f"at least as uneven would occur with probability {self.p_value:.0%}."
            )
        better = max((self.only_first, self.first.name), (self.only_second, self.second.name))[1]
        return f"{better} is significantly more accurate on this {self.role} set ({counts}; {p}, below {ALPHA})."

    def markdown(self) -> str:
        """The table of both sides, the counts, and the verdict."""
        sides = (self.first, self.second)
        rows = [
            ("accuracy, %", *(f"{side.measured.accuracy:.2%}".rstrip("%") for side in sides)),
            ("NLL, nats", *(f"{side.measured.nll:.4f}" for side in sides)),
            ("ECE (15 bins), %", *(f"{side.measured.ece:.2%}".rstrip("%") for side in sides)),
            ("graph, bytes", *(f"{side.graph_bytes:,}" for side in sides)),
            *((f"µs per image, batch {b}", *(f"{side.microseconds[b]:.1f}" for side in sides)) for b in BATCHES),
            ("right alone, images", str(self.only_first), str(self.only_second)),
        ]
        shared = f"{self.images:,} {self.role} images; both predict the same class for {self.agreement:.2%}."
        return "\n\n".join([table(("measure", *(side.name for side in sides)), rows), shared, self.verdict])


def compare(first: Bundle, second: Bundle, dataset: Dataset, role: Role = "test") -> Comparison:
    """Measure two classifiers on a split of `dataset`: test, or validation where a choice depends on the result.

    Raises:
        EvaluationError: a bundle is no classifier, or the two were trained with different data or do not take the
            images and classes of `dataset`.
    """
    require_comparable(first, second)
    split = dataset.test if role == "test" else dataset.validation
    if split.labels is None:
        raise EvaluationError(f"{dataset.name} has no labels to compare with; use labelled data")
    for bundle in (first, second):
        require_same(bundle.name, bundle, dataset)
    images, labels = split.images, split.labels
    answers = [predict(bundle, images)["probabilities"] for bundle in (first, second)]
    classes = [probabilities.argmax(axis=1) for probabilities in answers]
    right = [predicted == labels for predicted in classes]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    paths = [bundle.graph_path("classify") for bundle in (first, second)]
    times = {batch: microseconds(paths, images, batch) for batch in BATCHES}
    same_name = first.name == second.name

    def side(index: int, bundle: Bundle) -> Side:
        return Side(
            f"{bundle.name}:{bundle.version}" if same_name else bundle.name,
            measure_probabilities(answers[index], labels),
            paths[index].stat().st_size,
            {batch: times[batch][index] for batch in BATCHES},
        )

    return Comparison(
        side(0, first),
        side(1, second),
        len(labels),
        float((classes[0] == classes[1]).mean()),
        only_first,
        only_second,
        mcnemar(only_first, only_second),
        role,
    )


def require_comparable(first: Bundle, second: Bundle) -> None:
    """Refuse bundles that are no classifiers, or were trained with different data.

    Raises:
        EvaluationError: naming the bundle, or both and their data.
    """
    for bundle in (first, second):
        if bundle.manifest.task != "classification":
            raise EvaluationError(f"{bundle.name} is a bundle for {bundle.manifest.task}; give two classifiers")
    ours, theirs = first.manifest.dataset, second.manifest.dataset
    if ours.digest != theirs.digest:
        raise EvaluationError(
            f"{first.name} was trained with {ours.name} (digest {ours.digest[:12]}), {second.name} with {theirs.name} "
            f"({theirs.digest[:12]}): test images of one may be training images of the other; train both on one set"
        )
