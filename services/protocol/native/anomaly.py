"""`/score`: how unusual is this image, where, and compared with what?"""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.regions import regions
from services.inference.scorer import Scorer
from services.protocol.image_input import read_images
from services.protocol.images import heat_map, text_png
from services.protocol.native.answers import Region, Score, ScoreResponse
from services.protocol.native.rendering import model_ref
from services.protocol.native.requests import ScoreRequest
from services.protocol.native.routes import Route
from services.scheduling.offload import INLINE_PIXELS
from services.served import Arrays
from services.tasks.anomaly import AnomalyPolicy, Verdicts, score_images

REGIONS = 16  # of one image, at most


async def score(plane: DataPlane, request: ScoreRequest, call: Call) -> ScoreResponse:
    """Score images: a conformal p-value and a verdict for each; on request heat map, regions, p-values by statistic."""
    mapped = request.heatmap or request.regions or request.statistics or request.look_alike
    operation = "score_map" if mapped else "score"
    served = plane.select(Scorer, operation, request.model)
    model = served.model
    for field in ("statistics", "look_alike"):
        if getattr(request, field) and field not in model.optional:
            message = (
                f"{field}: model {model.bundle.name} does not compute it; leave {field} out, or train a new scorer"
            )
            raise InvalidInput(message, field=field)
    served.admit(operation, len(request.images), call)
    images = await read_images(request.images, served, plane, call)
    policy = AnomalyPolicy(request.alpha, request.policy, request.per_class)
    outputs, verdicts = await score_images(served, images, policy, call, mapped=mapped)
    with call.stage("encode"):
        scores = [_score(i, outputs, verdicts, model, per_class=request.per_class) for i in range(len(images))]
        if mapped:
            work = partial(_add_maps, scores, outputs, request, model)
            await plane.offload.run_if_large(work, call, 3 * outputs["residual"].size, INLINE_PIXELS)
    return ScoreResponse(
        model=model_ref(served),
        alpha=request.alpha,
        policy=request.policy,
        threshold=verdicts.threshold,
        false_positive_band=verdicts.band,
        calibration_size=verdicts.size,
        smallest_p_value=verdicts.smallest,
        warning=verdicts.warning,
        scores=scores,
    )


def _score(i: int, outputs: Arrays, verdicts: Verdicts, model: Scorer, *, per_class: bool) -> Score:
    score = Score(
        p_value=float(outputs["p_value"][i]),
        anomalous=bool(verdicts.anomalous[i]),
        score=float(outputs["score"][i]),
    )
    if per_class:
        score.label = model.class_names[int(outputs["label"][i])]
        score.class_p_value = float(outputs["class_p_value"][i])
    return score


def _add_maps(scores: list[Score], outputs: Arrays, request: ScoreRequest, model: Scorer) -> None:
    """Add what the request asks for beside the verdicts."""
    for i, score in enumerate(scores):
        heat = outputs["residual"][i] / model.residual_scale
        if request.statistics:
            p_values = np.exp(-outputs["statistics"][i].astype(np.float64)).tolist()
            score.statistics = dict(zip(model.statistics, p_values, strict=True))
        if request.regions:
            score.regions = [Region(box=r.box, peak=r.peak, area=r.area) for r in regions(heat, 1, REGIONS)]
        if request.heatmap:
            score.heatmap = base64.b64encode(heat_map(heat, 1)).decode()
        if request.look_alike:
            score.look_alike = text_png(outputs["look_alike"][i])


ROUTES: tuple[Route[Any], ...] = (Route("/score", score, ScoreResponse),)
