"""Evaluates samples by a classifier and a scorer, and draws those again that the classifier does not recognise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.chain import STRIDE
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.scorer import Scorer
from services.served import Served

DRAWS = 8  # of one image, the first included

M = TypeVar("M", Classifier, Scorer)


@dataclass(frozen=True)
class Drawn:
    """Samples uint8 [N,C,H,W] of the classes `labels` (None: no class was requested), and their numbers."""

    images: np.ndarray
    labels: np.ndarray | None
    items: range


@dataclass(frozen=True)
class Quality:
    """What the classifier and the scorer say of one sample.

    Attributes:
        label: the class that the classifier predicts.
        probability: of the requested class; without one, of `label`.
        p_value: the scorer's; None if no scorer is served.
        draws: how often the sample was drawn.
        accepted: whether it reached the bar; None without one.
    """

    label: str
    probability: float
    p_value: float | None
    draws: int
    accepted: bool | None


@dataclass(frozen=True)
class SampleEvaluators:
    """The classifier, and the scorer if there is one, for the images and classes of a generator.

    Attributes:
        bar: a sample is drawn again if the probability of its class is below this; None: never.
        cacheable: whether the same samples can be requested again.
    """

    classifier: Served[Classifier]
    scorer: Served[Scorer] | None
    bar: float | None
    cacheable: bool

    @classmethod
    def of(cls, plane: DataPlane, model: Generator, bar: float | None, *, cacheable: bool) -> SampleEvaluators:
        """Raises: InvalidInput: no classifier of the generator's classes is served here."""
        classifier = _beside(plane, model, Classifier)
        if classifier is None:
            field = "quality" if bar is None else "min_quality"
            message = (
                f"{field}: no classifier for the classes of {model.bundle.name} is served here; use the all-in-one"
            )
            raise InvalidInput(message, field=field)
        return cls(classifier, _beside(plane, model, Scorer), bar, cacheable)

    async def evaluate(
        self, drawn: Drawn, again: Callable[[list[int], np.ndarray], Awaitable[np.ndarray]], call: Call
    ) -> tuple[np.ndarray, list[Quality]]:
        """Samples, and the quality of each.

        A sample below the bar is drawn again from the same seed, and the best of its draws is kept: the same request
        gives the same images.

        Args:
            drawn: the samples.
            again: numbers of draws [n] and the rows of the samples that they replace [n] -> images [n,C,H,W].
            call: the request.
        """
        images, wanted = drawn.images.copy(), drawn.labels
        probabilities = (await self._probabilities(images, call)).copy()
        draws = np.ones(len(images), np.int64)
        bar = None if self.bar is None else np.float32(self.bar)
        for draw in range(1, DRAWS if bar is not None else 1):
            rows = np.flatnonzero(_confidence(probabilities, wanted) < bar)
            if not len(rows):
                break
            new = await again([drawn.items[row] + draw * STRIDE for row in rows], rows)
            seen = await self._probabilities(new, call)
            labels = None if wanted is None else wanted[rows]
            better = _confidence(seen, labels) > _confidence(probabilities[rows], labels)
            images[rows[better]], probabilities[rows[better]] = new[better], seen[better]
            draws[rows] += 1
        p_values = None
        if self.scorer is not None:
            inputs = {"images": images}
            p_values = (await self.scorer.infer("score", inputs, call, cacheable=self.cacheable))["p_value"]
        confidence = _confidence(probabilities, wanted)
        return images, [
            Quality(
                label=self.classifier.model.class_names[int(probabilities[i].argmax())],
                probability=float(confidence[i]),
                p_value=None if p_values is None else float(p_values[i]),
                draws=int(draws[i]),
                accepted=None if bar is None else bool(confidence[i] >= bar),
            )
            for i in range(len(images))
        ]

    async def _probabilities(self, images: np.ndarray, call: Call) -> np.ndarray:
        inputs = {"images": images}
        outputs = await self.classifier.infer("classify", inputs, call, cacheable=self.cacheable)
        return outputs["probabilities"]


def _confidence(probabilities: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The probability of the requested class [N], or of the most probable class."""
    if labels is None:
        best: np.ndarray = probabilities.max(axis=1)
        return best
    chosen: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return chosen


def _beside(plane: DataPlane, model: Generator, kind: type[M]) -> Served[M] | None:
    """A model of that kind for the same images and classes, preferably one without the generator's own weights."""
    own = model.bundle.manifest
    fitting = [
        served
        for served in plane.of(kind)
        if served.model.bundle.manifest.image == own.image
        and served.model.bundle.manifest.class_names == own.class_names
    ]
    return min(fitting, key=lambda other: other.model.bundle.manifest.network in ("cvae", own.network), default=None)
