"""A classifier: images in, class probabilities and explanations out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from services.inference.bundle import Bundle, Task
from services.inference.explanation import occlusion, passes, rise
from services.inference.session import Arrays, Session

CLASSIFY = ("logits", "probabilities", "prediction_set")  # the last one if the graph has it
ACTIVATION = "class_activation"
JOINT = "log_joint"
EXPLANATIONS = {"occlusion": occlusion, "rise": rise}
Likelihood = Literal["bernoulli", "logistic", "none"]


@dataclass(frozen=True)
class JointBound:
    """What `log_joint` is.

    Attributes:
        draws: of z, for the importance-weighted bound.
        likelihood: of a pixel; none: the cross-entropy of grey pixels, which is not a likelihood.
        error: root mean square difference of log p(x) from the bound with many draws, in nats.
    """

    draws: int
    likelihood: Likelihood
    error: float


class Classifier:
    """Operations on images uint8 [N,C,H,W].

    `classify` -> logits, probabilities float32 [N,K], and prediction_set uint8 [N,K] if the graph has it.
    `class_activation` -> the same and class_activation float32 [N,K,h,w], if the graph has it.
    `occlusion` and `rise` also take labels int64 [N], the classes to explain -> saliency float32 [N,H,W]; they run the
    graph some hundred times for each image.
    `log_joint` -> log_joint float32 [N,K], a bound on log p(x, y) in nats, of a generative classifier.
    """

    task: ClassVar[Task] = "classification"

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self._classify = Session(bundle.graph_path("classify"), threads=threads)
        self._outputs = tuple(name for name in CLASSIFY if name in self._classify.outputs)
        activation = (ACTIVATION,) if ACTIVATION in self._classify.outputs else ()
        self.explanations: tuple[str, ...] = (*activation, *EXPLANATIONS)
        height, width = bundle.manifest.image.shape[1:]
        blank = {"saliency": np.zeros((1, height, width), np.float32)}
        self.estimated_operations = {name: (count, blank) for name, count in passes(height, width).items()}
        self.joint = None
        if JOINT in bundle.manifest.graphs:
            self._joint = Session(bundle.graph_path(JOINT), threads=threads)
            self.joint = _bound(bundle.manifest.constants)
            self.estimated_operations[JOINT] = (
                self.joint.draws,
                {JOINT: np.zeros((1, len(self.class_names)), np.float32)},
            )
        joint = (JOINT,) if self.joint else ()
        self.operations: tuple[str, ...] = ("classify", *self.explanations, *joint)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.manifest.class_names

    @property
    def coverage(self) -> float | None:
        """The share of images whose prediction set contains their class; None: the graph makes no sets."""
        return self.bundle.manifest.constants.get("set_coverage")

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        if operation == "classify":
            return self._classify.run(inputs, self._outputs)
        if operation == ACTIVATION:
            return self._classify.run(inputs, (*self._outputs, ACTIVATION))
        if operation == JOINT:  # one image at a time: each is decoded draws x K times, and a batch would need gigabytes
            parts = [self._joint.run({"images": image[None]})[JOINT] for image in inputs["images"]]
            return {JOINT: np.concatenate(parts)}
        explain = EXPLANATIONS[operation]
        pairs = zip(inputs["images"], inputs["labels"].tolist(), strict=True)
        return {"saliency": np.stack([explain(self._probabilities, image, label) for image, label in pairs])}

    def example(self, operation: str) -> Arrays:
        images = np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)
        return {"images": images} | ({"labels": np.zeros(1, np.int64)} if operation in EXPLANATIONS else {})

    def _probabilities(self, images: np.ndarray) -> np.ndarray:
        return self._classify.run({"images": images}, ("probabilities",))["probabilities"]


def _bound(constants: Mapping[str, float]) -> JointBound:
    likelihood: Likelihood = "none"
    if "binarised" in constants:
        likelihood = "bernoulli"
    elif "log_scale/0" in constants:
        likelihood = "logistic"
    return JointBound(int(constants["log_joint_draws"]), likelihood, constants["log_joint_error"])
