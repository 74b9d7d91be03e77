"""BentoML as its documentation shows it, `batchable=True`, around the graph that Duet serves in the same tests."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, traffic={"timeout": 120})
class Stock:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)
        self._computed = 0

    @bentoml.api(batchable=True, max_batch_size=512, max_latency_ms=120_000)
    def classify(self, images: np.ndarray) -> np.ndarray:
        self._computed += len(images)
        return self._session.run(["probabilities"], {"images": images.astype(np.uint8)})[0]

    @bentoml.api(batchable=True, max_batch_size=512, max_latency_ms=120_000)
    def caller(self, items: np.ndarray, ctx: bentoml.Context) -> np.ndarray:
        """Says who calls, by a header of the request."""
        return np.full(len(items), int(ctx.request.headers["x-request-id"]))

    @bentoml.api
    def computed(self) -> int:
        return self._computed
