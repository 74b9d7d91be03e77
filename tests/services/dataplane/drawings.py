"""A generator whose every drawing is known, and that fails on an unknown label."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DRAWINGS = np.array([[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]], np.float32)  # one a class


def by_class() -> onnx.ModelProto:
    """latents [N,2] and labels [N] -> the label's drawing, brighter by the first latent; an unknown label fails."""
    nodes = [
        helper.make_node("Gather", ["drawings", "labels"], ["drawn"]),
        helper.make_node("Slice", ["latents", "zero", "one", "one"], ["brightness"]),
        helper.make_node("Add", ["drawn", "brightness"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["images"], to=TensorProto.UINT8),
    ]
    constants = {
        "drawings": DRAWINGS,
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "shape": np.array([-1, 1, 2, 2], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "decode",
        [
            helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
