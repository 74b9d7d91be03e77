"""Anomaly scoring: how unusual is this image, and where?"""

from __future__ import annotations

import base64

import bentoml

from services.dataplane import DataPlane
from services.inference.scorer import Scorer
from services.protocol.answers import model_ref, read_images
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.images import heat_map
from services.protocol.native import route
from services.protocol.schemas import Score, ScoreRequest, ScoreResponse
from services.telemetry import metrics
from services.telemetry.call import Call


async def score(plane: DataPlane, request: ScoreRequest, call: Call) -> ScoreResponse:
    """Score images: a conformal p-value each, the verdict at alpha, and on request a map of what is unusual."""
    operation = "score_map" if request.heatmap else "score"
    model = plane.select(Scorer, operation, request.model)
    with call.stage("decode"):
        images = await read_images(request.images, model, plane.settings)
    outputs = await plane.infer(model, operation, {"images": images}, call)
    scores = []
    with call.stage("encode"):
        for i, (nats, p_value) in enumerate(zip(outputs["score"], outputs["p_value"], strict=True)):
            metrics.P_VALUES.labels(model.bundle.name).observe(float(p_value))
            picture = heat_map(outputs["residual"][i], model.residual_scale) if request.heatmap else None
            scores.append(
                Score(
                    p_value=float(p_value),
                    anomalous=bool(p_value <= request.alpha),
                    score=float(nats),
                    heatmap=base64.b64encode(picture).decode() if picture else None,
                )
            )
    return ScoreResponse(
        model=model_ref(model), alpha=request.alpha, smallest_p_value=model.smallest_p_value, scores=scores
    )


class AnomalyRoutes:
    score = route("/score", score, ScoreResponse)


plane = DataPlane(["anomaly"])


@bentoml.service(name="anomaly", **CONFIG)
class Anomaly(Lifecycle, AnomalyRoutes):
    """Scores how unusual images are."""

    plane = plane


outfit(Anomaly, plane)
