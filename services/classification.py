"""Classification: what is in this image?"""

from __future__ import annotations

import bentoml
import numpy as np

from services.dataplane import DataPlane
from services.inference.classifier import Classifier
from services.protocol.answers import model_ref, read_images
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.native import route
from services.protocol.schemas import ClassifyRequest, ClassifyResponse, ClassProbability, Prediction
from services.telemetry import metrics
from services.telemetry.call import Call


async def classify(plane: DataPlane, request: ClassifyRequest, call: Call) -> ClassifyResponse:
    """Classify images: the most probable classes of each."""
    model = plane.select(Classifier, "classify", request.model)
    with call.stage("decode"):
        images = await read_images(request.images, model, plane.settings)
    outputs = await plane.infer(model, "classify", {"images": images}, call)
    with call.stage("encode"):
        predictions = [_prediction(row, model.class_names, request.top_k) for row in outputs["probabilities"]]
    for prediction in predictions:
        metrics.predictions(model.bundle.name, prediction.label).inc()
    return ClassifyResponse(model=model_ref(model), predictions=predictions)


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
