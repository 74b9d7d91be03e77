"""Ray Serve: one replica, raw bytes in and out.

`python ray_server.py GRAPH PORT`
"""

import sys
import time

import numpy as np
import onnxruntime
import ray  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Classifier:
    def __init__(self, graph: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response()
        images = np.frombuffer(await request.body(), np.uint8).reshape(-1, 1, 28, 28)
        (probabilities,) = self.session.run(["probabilities"], {"images": images})
        return Response(probabilities.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Classifier.bind(sys.argv[1]), route_prefix="/")  # type: ignore[attr-defined]
    while True:
        time.sleep(3600)
