"""A classifier: images in, class probabilities out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from services.inference.bundle import Bundle
from services.inference.session import Arrays, Session


class Classifier:
    """Operation `classify`: images uint8 [N,C,H,W] -> logits, probabilities float32 [N,K]."""

    operations = ("classify",)

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self._classify = Session(bundle.graph_path("classify"), threads=threads)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.manifest.class_names

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._classify.run(inputs, ("logits", "probabilities"))

    def example(self, operation: str) -> Arrays:
        return {"images": np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)}
