"""Triton's Python backend: one instance, inference in its process; requests that wait are one batch."""

import json
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend  # type: ignore[import-not-found]


class TritonPythonModel:
    """The name and the methods are those that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        graph = json.loads(args["model_config"])["parameters"]["graph"]["string_value"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        batches = [backend.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        images = batches[0] if len(batches) == 1 else np.concatenate(batches)
        (rows,) = self.session.run(["probabilities"], {"images": images})
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return [
            backend.InferenceResponse(output_tensors=[backend.Tensor("probabilities", part)])
            for part in np.split(rows, ends)
        ]
