"""`/classify`: what is in this image?"""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import JOINT, JointBound
from services.protocol.image_input import read_images
from services.protocol.images import heat_map
from services.protocol.native.answers import ClassifyResponse, LogJointBound
from services.protocol.native.rendering import about_model
from services.protocol.native.requests import ClassifyRequest
from services.protocol.native.routes import Fields, Route
from services.scheduling.offload import INLINE_PIXELS
from services.tasks.classification import classify as classify_images
from services.tasks.classification import select_classifier
from services.tasks.limits import class_index

SMALLEST_SCALE = 1e-9  # of a map without a positive value


async def classify(plane: DataPlane, request: ClassifyRequest, call: Call) -> Fields:
    """Classify images: the most probable classes of each, on request with a prediction set and an explanation."""
    served = select_classifier(plane, request.model, request.explanation, joint=request.log_joint)
    model = served.model
    if request.prediction_set and model.coverage is None:
        message = f"prediction_set: model {model.bundle.name} makes no prediction sets; leave it out, or train it again"
        raise InvalidInput(message, field="prediction_set")
    kinds = [request.explanation] if request.explanation else []
    served.admit(JOINT if request.log_joint else request.explanation or "classify", len(request.images), call)
    images = await read_images(request.images, served, plane, call)
    explained = None
    if kinds and request.explain_class is not None:
        explained = class_index(request.explain_class, model.class_names, "explain_class")
    found = await classify_images(
        served, images, call, explanations=kinds, explained=explained, joint=request.log_joint
    )
    with call.stage("encode"):
        rows = found.outputs["probabilities"].tolist()
        predictions = [_prediction(row, model.class_names, request.top_k) for row in rows]
        if request.prediction_set:
            for prediction, held in zip(predictions, found.outputs["prediction_set"].tolist(), strict=True):
                names = [name for name, is_in in zip(model.class_names, held, strict=True) if is_in]
                prediction["prediction_set"] = names
        if found.log_joint is not None:
            for prediction, nats in zip(predictions, found.log_joint.tolist(), strict=True):
                prediction["log_joint"] = dict(zip(model.class_names, nats, strict=True))
                prediction["log_evidence"] = float(np.logaddexp.reduce(nats))
        for maps in found.maps.values():
            work = partial(_add_explanations, predictions, maps)
            await plane.offload.run_if_large(work, call, 3 * maps.size, INLINE_PIXELS)
    answer: Fields = {"model": about_model(served)}
    if request.prediction_set:
        answer["coverage"] = model.coverage
    if request.log_joint and model.joint:
        answer["log_joint"] = _bound(model.joint).model_dump()
    return answer | {"predictions": predictions}


def _bound(joint: JointBound) -> LogJointBound:
    return LogJointBound(
        bound=f"importance-weighted, {joint.draws} draws of z",
        prior="p(z|y): a Gaussian for each class, fitted to the training images; p(y): all classes equally likely",
        likelihood=joint.likelihood,
        error=joint.error,
    )


def _add_explanations(predictions: list[Fields], maps: np.ndarray) -> None:
    for prediction, values in zip(predictions, maps, strict=True):
        picture = heat_map(values, max(float(values.max()), SMALLEST_SCALE))
        prediction["explanation"] = base64.b64encode(picture).decode()


def _prediction(probabilities: list[float], class_names: tuple[str, ...], top_k: int) -> Fields:
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)  # stable: ties by index
    top = [{"label": class_names[i], "index": i, "probability": probabilities[i]} for i in order[:top_k]]
    return {**top[0], "top": top}


ROUTES: tuple[Route[Any], ...] = (Route("/classify", classify, ClassifyResponse),)
