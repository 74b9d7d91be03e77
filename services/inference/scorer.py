"""An anomaly scorer: images in, conformal p-values out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from services.inference.bundle import Bundle
from services.inference.session import Arrays, Session

OUTPUTS = {"score": ("score", "p_value"), "score_map": ("score", "p_value", "residual")}


class Scorer:
    """Operations on images uint8 [N,C,H,W].

    `score` -> score float32 [N] (nats, higher is stranger), p_value float32 [N]; `score_map` adds residual
    float32 [N,H,W], the nats of each pixel. Two operations, so that a cached score never carries a map.
    """

    operations = tuple(OUTPUTS)
    untried: Mapping[str, tuple[int, Arrays]] = MappingProxyType({})

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self._score = Session(bundle.graph_path("score"), threads=threads)

    @property
    def residual_scale(self) -> float:
        """The pixel residual (nats) that only 1 % of the pixels of normal images exceed."""
        return self.bundle.manifest.constants["residual_q99"]

    @property
    def smallest_p_value(self) -> float:
        return self.bundle.manifest.constants["smallest_p_value"]

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._score.run(inputs, OUTPUTS[operation])

    def example(self, operation: str) -> Arrays:
        return {"images": np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)}
