"""A judge: a frozen classifier whose features are used to compare samples with real images.

The features are the inputs of its last layer. Another judge gives other figures, so each figure is reported together
with the same figure for real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.graphs.session import open_graph, run
from training.metrics.samples import Features, mean_distance

FEATURES = "features"


class JudgeError(ValueError):
    """A bundle cannot be a judge; the message names it and the remedy."""


@dataclass(frozen=True)
class Judge:
    """Computes features and probabilities of images uint8 [N,C,H,W]."""

    name: str
    session: onnxruntime.InferenceSession

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        outputs = run(self.session, {"images": images})
        return Features(outputs[FEATURES], outputs["probabilities"])


def perceptual_distance(judge: Judge, images: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """The perceptual distance of pairs of images, both [N,C,H,W]: 0 for equal images, 1 for two random images.

    The mean Euclidean distance of the judge's features of each pair, over that of all pairs of different `images`.
    """
    features, twins = judge(images).features, judge(others).features
    return float(np.linalg.norm(features - twins, axis=1).mean() / max(mean_distance(features), 1e-9))


def judge_of(bundle: Bundle) -> Judge:
    """The judge in a stored classifier: its graph, with the input of the last dense layer as one more output.

    Raises:
        JudgeError: the last layer is not dense.
    """
    model = onnx.load(bundle.graph_path("classify"))
    dense = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    if not dense or bundle.manifest.task != "classification":
        raise JudgeError(f"judge {bundle.name} has no dense layer whose inputs are features; give a CNN")
    del model.graph.output[:]
    features = onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)
    probabilities = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, None)
    model.graph.node.append(onnx.helper.make_node("Identity", [dense[-1].input[0]], [FEATURES]))
    model.graph.output.extend([features, probabilities])
    return Judge(f"{bundle.name}:{bundle.version}", open_graph(model.SerializeToString()))
