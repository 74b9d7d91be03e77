"""All three services in one process: the embedded default, no Redis needed."""

from __future__ import annotations

import bentoml

from services.anomaly import AnomalyRoutes
from services.classification import ClassificationRoutes
from services.dataplane import DataPlane
from services.generation import GenerationRoutes
from services.protocol.bento import CONFIG, Lifecycle, outfit

plane = DataPlane(["generation", "classification", "anomaly"])


@bentoml.service(name="allinone", **CONFIG)
class AllInOne(Lifecycle, GenerationRoutes, ClassificationRoutes, AnomalyRoutes):
    """Draws, classifies and scores images."""

    plane = plane


outfit(AllInOne, plane)
