"""Classification: what is in this image?"""

from __future__ import annotations

import base64

import bentoml
import numpy as np

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.classifier import ACTIVATION, Classifier
from services.protocol.answers import class_index, model_ref, read_images, saliency
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.images import heat_map
from services.protocol.native import route
from services.protocol.schemas import ClassifyRequest, ClassifyResponse, ClassProbability, Prediction
from services.telemetry import metrics
from services.telemetry.call import Call

TINY = 1e-9  # the scale of a map without a positive value


async def classify(plane: DataPlane, request: ClassifyRequest, call: Call) -> ClassifyResponse:
    """Classify images: the most probable classes of each, on request with a prediction set and an explanation."""
    model = plane.select(Classifier, request.explanation or "classify", request.model)
    if request.prediction_set and model.coverage is None:
        message = f"prediction_set: model {model.bundle.name} makes no prediction sets; leave it out, or train it again"
        raise InvalidInput(message, field="prediction_set")
    with call.stage("decode"):
        images = await read_images(request.images, model, plane.settings)
    operation = ACTIVATION if request.explanation == ACTIVATION else "classify"
    outputs = await plane.infer(model, operation, {"images": images}, call)
    with call.stage("encode"):
        predictions = [_prediction(row, model.class_names, request.top_k) for row in outputs["probabilities"]]
        if request.prediction_set:
            for prediction, held in zip(predictions, outputs["prediction_set"].tolist(), strict=True):
                prediction.prediction_set = [name for name, is_in in zip(model.class_names, held, strict=True) if is_in]
    if request.explanation:
        labels = _explained(request, predictions, model)
        maps = await saliency(plane, model, request.explanation, images, labels, outputs, call)
        with call.stage("encode"):
            for prediction, values in zip(predictions, maps, strict=True):
                prediction.explanation = base64.b64encode(heat_map(values, max(float(values.max()), TINY))).decode()
    for prediction in predictions:
        metrics.predictions(model.bundle.name, prediction.label).inc()
    coverage = model.coverage if request.prediction_set else None
    return ClassifyResponse(model=model_ref(model), coverage=coverage, predictions=predictions)


def _explained(request: ClassifyRequest, predictions: list[Prediction], model: Classifier) -> np.ndarray:
    """The class of each image that is to be explained."""
    if request.explain_class is None:
        return np.array([prediction.index for prediction in predictions])
    label = class_index(request.explain_class, model.class_names, "explain_class")
    return np.full(len(predictions), label)


def _prediction(probabilities: np.ndarray, class_names: tuple[str, ...], top_k: int) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    ranked = [(class_names[i], i, float(probabilities[i])) for i in order.tolist()]
    top = [ClassProbability(label=label, index=i, probability=p) for label, i, p in ranked]
    label, index, probability = ranked[0]
    return Prediction(label=label, index=index, probability=probability, top=top)


class ClassificationRoutes:
    classify = route("/classify", classify, ClassifyResponse)


plane = DataPlane(["classification"])


@bentoml.service(name="classification", **CONFIG)
class Classification(Lifecycle, ClassificationRoutes):
    """Classifies images."""

    plane = plane


outfit(Classification, plane)
