"""LitServe: JSON is all that it takes, so pixels come as base64 in it.

`python litserve_server.py GRAPH PORT`
"""

import base64
import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np
import onnxruntime


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, graph: str) -> None:
        super().__init__()
        self.graph = graph

    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.frombuffer(base64.b64decode(request["images"]), np.uint8).reshape(request["shape"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self.session.run(["probabilities"], {"images": images})[0]
        return probabilities

    def encode_response(self, output: np.ndarray) -> list[list[float]]:
        rows: list[list[float]] = output.tolist()
        return rows


if __name__ == "__main__":
    litserve.LitServer(Classifier(sys.argv[1]), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
