"""Classification: the classes of images, and which pixels support them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from services.call import Call
from services.inference.classifier import ACTIVATION, Classifier
from services.served import Arrays, Served
from services.telemetry import metrics


@dataclass(frozen=True)
class Classified:
    """The answer to images [N].

    Attributes:
        outputs: of the model: logits and probabilities float32 [N,K], and prediction_set uint8 [N,K] if it has it.
        best: the most probable class of each image, int64 [N].
        maps: saliency float32 [N,H,W] by kind of explanation.
    """

    outputs: Arrays
    best: np.ndarray
    maps: Mapping[str, np.ndarray]


async def classify(
    served: Served[Classifier],
    images: np.ndarray,
    call: Call,
    *,
    explanations: Collection[str] = (),
    explained: int | None = None,
) -> Classified:
    """Classify images uint8 [N,C,H,W].

    Args:
        served: the model.
        images: of its shape.
        call: the request.
        explanations: kinds of explanation, operations of the model.
        explained: index of the class to explain; None: the most probable one of each image.
    """
    operation = ACTIVATION if ACTIVATION in explanations else "classify"
    outputs = await served.infer(operation, {"images": images}, call)
    best = outputs["probabilities"].argmax(axis=1)
    maps = {}
    for kind in explanations:
        labels = best if explained is None else np.full_like(best, explained)
        maps[kind] = await _saliency(served, kind, images, labels, outputs, call)
    if not call.trial:
        for index in best.tolist():
            metrics.predictions(served.entry.name, served.model.class_names[index]).inc()
    return Classified(outputs, best, maps)


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
