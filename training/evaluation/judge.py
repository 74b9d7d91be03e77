"""A judge: a frozen classifier through whose eyes samples are compared with real images.

Its features are what its last layer sees. Nothing that is measured with it means anything without the row of real
images beside it: another judge gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.evaluation.diversity import mean_distance
from training.evaluation.runtime import Array, open_graph, run

FEATURES = "features"


class JudgeError(ValueError):
    """A classifier cannot judge; the message names it and the remedy."""


@dataclass(frozen=True)
class Seen:
    """Images through the eyes of a judge: features float32 [N,D], probabilities float32 [N,K]."""

    features: Array
    probabilities: Array

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most probable class of each image [N]."""
        result: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return result

    def at(self, rows: Any) -> Seen:
        return Seen(self.features[rows], self.probabilities[rows])


@dataclass(frozen=True)
class Judge:
    """Looks at images uint8 [N,C,H,W]."""

    name: str
    session: onnxruntime.InferenceSession

    def __call__(self, images: NDArray[np.uint8]) -> Seen:
        outputs = run(self.session, {"images": images})
        return Seen(outputs[FEATURES], outputs["probabilities"])


def perceptual_distance(judge: Judge, images: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """How different images look from their twins, both [N,C,H,W]: 0 for equal ones, 1 as two images taken at random.

    The mean Euclidean distance of the judge's features of each pair, over that of all pairs of different `images`.
    """
    features, twins = judge(images).features, judge(others).features
    return float(np.linalg.norm(features - twins, axis=1).mean() / max(mean_distance(features), 1e-9))


def judge_of(bundle: Bundle) -> Judge:
    """The judge in a stored classifier: its graph, with the input of the last dense layer as one more output.

    Raises:
        JudgeError: it has no dense layer on top.
    """
    model = onnx.load(bundle.graph_path("classify"))
    dense = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    if not dense or bundle.manifest.task != "classification":
        raise JudgeError(f"judge {bundle.name}: it has no dense layer whose inputs are features; give a CNN")
    del model.graph.output[:]
    features = onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)
    probabilities = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, None)
    model.graph.node.append(onnx.helper.make_node("Identity", [dense[-1].input[0]], [FEATURES]))
    model.graph.output.extend([features, probabilities])
    return Judge(f"{bundle.name}:{bundle.version}", open_graph(model.SerializeToString()))
