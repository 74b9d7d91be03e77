"""scikit-learn's classifiers as networks: in the same graph, so with the same calibration and parity check."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from training.export.wrappers import Classify
from training.networks.estimator import Scores

OPSET = 19  # skl2onnx's newest for support vector machines


def convert(graph: Classify) -> onnx.ModelProto:
    """The ONNX model of `graph`, whose network is `Scores`: skl2onnx's model between the nodes of a bundle's graph."""
    from skl2onnx import convert_sklearn  # noqa: PLC0415 (slow to import, and seldom needed)
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    scores: Scores = graph.cnn
    channels, height, width = scores.image_shape
    pixels = channels * height * width
    with warnings.catch_warnings():
        # skl2onnx reads attributes that scikit-learn deprecates.
        warnings.filterwarnings("ignore", "Attribute `prob[AB]_`", FutureWarning)
        converted = convert_sklearn(
            scores.estimator,
            initial_types=[("pixels", FloatTensorType([None, pixels]))],
            options={id(scores.estimator): {"zipmap": False, "raw_scores": True}},
            target_opset={"": OPSET, "ai.onnx.ml": 1},
        )
    inner = compose.add_prefix_graph(converted.graph, "estimator.")
    constants = {"white": np.float32(255), "temperature": np.float32(graph.temperature)}
    nodes = [
        helper.make_node("Cast", ["images"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["grey", "white"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], [inner.input[0].name]),
        *inner.node,
        helper.make_node("Div", [inner.output[1].name, "temperature"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    classes = len(scores.estimator.classes_)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes]) for name in graph.outputs[:2]]
    if graph.threshold is not None:
        constants["threshold"] = np.float32(graph.threshold)
        nodes += [
            helper.make_node("GreaterOrEqual", ["probabilities", "threshold"], ["likely"]),
            helper.make_node("Cast", ["likely"], ["prediction_set"], to=TensorProto.UINT8),
        ]
        outputs.append(helper.make_tensor_value_info("prediction_set", TensorProto.UINT8, ["N", classes]))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "classify",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", channels, height, width])],
            outputs,
            [*inner.initializer, *(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())],
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=10,
    )
