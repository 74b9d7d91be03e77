"""Classification: the classes of images, and which pixels support them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import ACTIVATION, JOINT, Classifier
from services.served import Arrays, Served
from services.telemetry import metrics


@dataclass(slots=True)
class Classified:
    """The answer to images [N].

    Attributes:
        outputs: of the model: logits and probabilities float32 [N,K], and prediction_set uint8 [N,K] if it has it.
        best: the most probable class of each image, int64 [N].
        maps: saliency float32 [N,H,W] by kind of explanation.
        log_joint: a bound on log p(x, y) in nats, float32 [N,K], if it was asked for.
    """

    outputs: Arrays
    best: np.ndarray
    maps: Mapping[str, np.ndarray]
    log_joint: np.ndarray | None = None


def select_classifier(
    plane: DataPlane, name: str | None, explanation: str | None, *, joint: bool
) -> Served[Classifier]:
    """The classifier that answers: of that name, or the default one that can.

    Raises:
        InvalidInput: `joint` is wanted of a discriminative classifier.
        NotReady, UnknownModel, InvalidInput: see `DataPlane.select`.
    """
    unnamed = joint and name is None and any(one.model.joint for one in plane.of(Classifier))
    operation = JOINT if unnamed else explanation or "classify"
    served = plane.select(Classifier, operation, name)
    if joint and served.model.joint is None:
        others = sorted({one.entry.name for one in plane.of(Classifier) if one.model.joint})
        remedy = f"name a generative classifier: {', '.join(others)}" if others else "leave it out"
        message = f"log_joint: model {served.entry.name} is discriminative and knows p(y|x) only; {remedy}"
        raise InvalidInput(message, field="log_joint")
    if joint and explanation:
        plane.select(Classifier, explanation, served.entry.tag)  # the same model must offer both
    return served


async def classify(
    served: Served[Classifier],
    images: np.ndarray,
    call: Call,
    *,
    explanations: Collection[str] = (),
    explained: int | None = None,
    joint: bool = False,
) -> Classified:
    """Classify images uint8 [N,C,H,W].

    Args:
        served: the model.
        images: of its shape.
        call: the request.
        explanations: kinds of explanation, operations of the model.
        explained: index of the class to explain; None: the most probable one of each image.
        joint: whether to bound log p(x, y); see `select_classifier`.
    """
    operation = ACTIVATION if ACTIVATION in explanations else "classify"
    outputs = await served.infer(operation, {"images": images}, call)
    best = outputs["probabilities"].argmax(axis=1)
    maps = {}
    for kind in explanations:
        labels = best if explained is None else np.full_like(best, explained)
        maps[kind] = await _saliency(served, kind, images, labels, outputs, call)
    log_joint = (await served.infer(JOINT, {"images": images}, call))[JOINT] if joint else None
    if not call.trial:
        entry, class_names = served.entry, served.model.class_names
        counts = {int(best[0]): 1} if len(best) == 1 else Counter(best.tolist())
        for index, count in counts.items():
            metrics.PREDICTIONS.labels(entry.name, entry.version, class_names[index]).inc(count)
    return Classified(outputs, best, maps, log_joint)


async def _saliency(
    served: Served[Classifier], kind: str, images: np.ndarray, labels: np.ndarray, outputs: Arrays, call: Call
) -> np.ndarray:
    """Maps float32 [N,H,W] for the classes int64 [N].

    Occlusion and rise are computed here. A class activation map is an output of `classify`, and is enlarged bilinearly.
    """
    if kind != ACTIVATION:
        inputs = {"images": images, "labels": labels.astype(np.int64)}
        return (await served.infer(kind, inputs, call))["saliency"]
    maps = outputs[ACTIVATION][np.arange(len(labels)), labels]
    return np.stack([_enlarged(one, images.shape[2:]) for one in maps])


def _enlarged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map float32 [h,w] enlarged to [H,W], bilinearly."""
    height, width = size
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
