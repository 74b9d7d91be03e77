"""Anomaly scoring: the verdict on each image, and the p-values for the drift test."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from services.call import Call
from services.errors import InvalidInput
from services.inference.conformal import band, benjamini_hochberg, most_unusual, pac_rank, pac_size, rank
from services.inference.drift.repeats import marks_of
from services.inference.scorer import Scorer
from services.served import Arrays, Served
from services.telemetry import metrics

Policy = Literal["p-value", "pac", "fdr", "top-fraction"]

SMALL_CALIBRATION = 100  # calibration images; below this number an answer warns that p-values are coarse


@dataclass(slots=True)
class Verdicts:
    """The verdicts on images [N].

    Attributes:
        anomalous: bool [N].
        threshold: p-values up to this are anomalous; None if it is not one number for all images.
        band: the rate of false alarms for the central 95 % of calibration sets; None if the policy bounds no such rate.
        size: number of calibration images; by class, that of the rarest class among the images.
        smallest: the smallest possible p-value.
        warning: what is not possible with so few calibration images; None if there is nothing to warn of.
    """

    anomalous: np.ndarray
    threshold: float | None
    band: tuple[float, float] | None
    size: int
    smallest: float
    warning: str | None


@dataclass(slots=True)
class AnomalyPolicy:
    """When an image is anomalous; `prefix` stands before the names of these fields in the protocol."""

    alpha: float
    policy: Policy
    per_class: bool
    prefix: str = ""

    def check(self, model: Scorer, count: int) -> None:
        """Refuse fields that this model or this number of images does not allow.

        Raises:
            InvalidInput: naming the field and the remedy.
        """
        if self.per_class and self.policy == "top-fraction":
            raise self._refusal("per_class", "policy top-fraction ranks scores, not p-values; leave one of the two out")
        if self.per_class and not ("class_p_value" in model.optional and model.class_sizes):
            raise self._refusal(
                "per_class",
                f"model {model.bundle.name} does not compute p-values by class; leave it out, or train a new scorer",
            )
        if self.policy == "top-fraction" and count < 2:
            raise self._refusal("policy", "top-fraction compares the images of one request; send at least two")

    def _refusal(self, field: str, why: str) -> InvalidInput:
        return InvalidInput(f"{self.prefix}{field}: {why}", field=f"{self.prefix}{field}")

    def verdicts(self, model: Scorer, outputs: Arrays) -> Verdicts:
        """Judge the outputs of the scorer's operations."""
        p_values = outputs["class_p_value" if self.per_class else "p_value"]
        sizes = [model.calibration_size]
        if self.per_class:
            sizes = [model.class_sizes[label] for label in outputs["label"].tolist()]
        size = min(sizes)
        smallest = 1 / (size + 1) if self.per_class else model.smallest_p_value
        threshold: float | None = self.alpha
        rates = None
        if self.policy == "top-fraction":
            anomalous, threshold = most_unusual(outputs["score"], self.alpha), None
        elif self.policy == "fdr":
            threshold = benjamini_hochberg(p_values, self.alpha)
            anomalous = p_values <= np.float32(threshold)
        elif self.policy == "pac":
            ranks = np.array([pac_rank(self.alpha, n) for n in sizes])
            anomalous = p_values <= (ranks + 0.5) / (
                np.array(sizes) + 1
            )  # half a step from each p-value: rounding is harmless
            threshold = None if self.per_class else int(ranks[0]) / (size + 1)
            rates = band(pac_rank(self.alpha, size), size)
        else:
            anomalous = p_values <= np.float32(self.alpha)
            rates = band(rank(self.alpha, size), size)
        return Verdicts(anomalous, threshold, rates, size, smallest, self._warning(size, smallest, len(p_values)))

    def _warning(self, size: int, smallest: float, count: int) -> str | None:
        images = f"{size} calibration images" + (" of one class" if self.per_class else "")
        if self.policy == "top-fraction":
            return None
        if rank(self.alpha, size) == 0:
            why = f"the smallest p-value of {images} is {smallest:.3g}"
            return f"no image can be anomalous at alpha {self.alpha:g}: {why}"
        if self.policy == "pac" and pac_rank(self.alpha, size) == 0:
            why = f"95 % confidence needs {pac_size(self.alpha)} calibration images, and there are {images}"
            return f"no image can be anomalous at alpha {self.alpha:g}: {why}"
        fewest = math.ceil(count * smallest / self.alpha)
        if self.policy == "fdr" and fewest > 1:
            why = f"the smallest p-value of {images} is {smallest:.3g}"
            return f"at alpha {self.alpha:g}, either none or at least {fewest} of {count} images are anomalous: {why}"
        if size < SMALL_CALIBRATION:
            return f"p-values are multiples of {smallest:.3g}: there are only {images}"
        return None


async def score_images(
    served: Served[Scorer], images: np.ndarray, policy: AnomalyPolicy, call: Call, *, mapped: bool
) -> tuple[Arrays, Verdicts]:
    """The scorer's outputs for images uint8 [N,C,H,W] (with the maps if `mapped`), and the verdicts.

    Raises:
        InvalidInput: see `AnomalyPolicy.check`.
    """
    model = served.model
    policy.check(model, len(images))
    outputs = await served.infer("score_map" if mapped else "score", {"images": images}, call)
    if not call.trial:
        p_values = outputs["p_value"].tolist()
        histogram = metrics.P_VALUES.labels(served.entry.name, served.entry.version)
        for p_value in p_values:
            histogram.observe(p_value)
        labels = outputs["label"].tolist() if "label" in outputs else None
        model.drift.see(p_values, labels, marks_of(images), time.time(), call.client)
    return outputs, policy.verdicts(model, outputs)
