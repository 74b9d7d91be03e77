"""What the other models say of samples, and drawing those again that the classifier does not recognise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.chain import STRIDE
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.noise import latents
from services.inference.scorer import Scorer
from services.protocol.schemas import GenerateRequest, Quality
from services.telemetry.call import Call

DRAWS = 8  # of one image, the first included

M = TypeVar("M", Classifier, Scorer)


@dataclass(frozen=True)
class Drawn:
    """Samples uint8 [N,C,H,W] of the classes `labels` (None: of any), and the seed that they come from."""

    images: np.ndarray
    labels: np.ndarray | None
    seed: int | None


async def judged(
    plane: DataPlane,
    model: Generator,
    drawn: Drawn,
    request: GenerateRequest,
    decode: Callable[[np.ndarray, np.ndarray], Awaitable[np.ndarray]],
    call: Call,
) -> tuple[np.ndarray, list[Quality]]:
    """Samples, and what the classifier and the scorer of the same data say of each.

    With `min_quality` a sample that the classifier gives less is drawn again from the same seed, and the best of its
    draws is kept: the same request gives the same images.

    Args:
        plane: holds the classifier, and the scorer if there is one.
        model: what drew.
        drawn: its samples.
        request: says what quality is asked for.
        decode: rows to draw again [n] and their latents [n,D] -> images [n,C,H,W].
        call: the request.

    Raises:
        InvalidInput: no classifier of the generator's classes is served here.
    """
    classifier = _beside(plane, model, Classifier)
    if classifier is None:
        raise InvalidInput(
            f"quality: no classifier of what {model.bundle.name} draws is served here; ask the all-in-one",
            field="quality" if request.quality else "min_quality",
        )
    images, wanted = drawn.images.copy(), drawn.labels
    rows = np.arange(len(images))
    probabilities = (await plane.infer(classifier, "classify", {"images": images}, call))["probabilities"]
    draws = np.ones(len(images), np.int64)
    for draw in range(1, DRAWS if request.min_quality is not None else 1):
        rows = np.flatnonzero(_confidence(probabilities, wanted) < np.float32(request.min_quality or 0))
        if not len(rows):
            break
        items = [int(row) + draw * STRIDE for row in rows]
        noise = latents(drawn.seed or 0, items, model.latent_size, truncation=request.truncation)
        again = await decode(rows, noise)
        seen = (await plane.infer(classifier, "classify", {"images": again}, call))["probabilities"]
        labels = None if wanted is None else wanted[rows]
        better = _confidence(seen, labels) > _confidence(probabilities[rows], labels)
        images[rows[better]], probabilities[rows[better]] = again[better], seen[better]
        draws[rows] += 1
    scorer = _beside(plane, model, Scorer)
    p_values = None if scorer is None else (await plane.infer(scorer, "score", {"images": images}, call))["p_value"]
    confidence = _confidence(probabilities, wanted)
    return images, [
        Quality(
            label=classifier.class_names[int(probabilities[i].argmax())],
            probability=float(confidence[i]),
            p_value=None if p_values is None else float(p_values[i]),
            draws=int(draws[i]),
            accepted=None if request.min_quality is None else bool(confidence[i] >= np.float32(request.min_quality)),
        )
        for i in range(len(images))
    ]


def _confidence(probabilities: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Of the class that was to be drawn [N], or of the most probable one."""
    if labels is None:
        best: np.ndarray = probabilities.max(axis=1)
        return best
    chosen: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return chosen


def _beside(plane: DataPlane, model: Generator, kind: type[M]) -> M | None:
    """A model of that kind for the same images: by preference one that has not the generator's own weights."""
    own = model.bundle.manifest
    fitting = [
        served.model
        for served in plane.served
        if isinstance(served.model, kind)
        and served.model.bundle.manifest.image == own.image
        and served.model.bundle.manifest.class_names == own.class_names
    ]
    return min(fitting, key=lambda other: other.bundle.manifest.network in ("cvae", own.network), default=None)
