"""BentoML as its documentation shows it: adaptive batching, JSON in and out, every setting at its default."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service
class Stock:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True)  # type: ignore[untyped-decorator]
    def classify(self, images: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self.session.run(["probabilities"], {"images": images.astype(np.uint8)})[0]
        return probabilities
