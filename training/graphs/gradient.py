"""The gradient of an exported classifier: its graph computed node by node in PyTorch.

So any bundle can be attacked, also without its training run, and the differentiated graph is the served graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from training.graphs.session import open_graph, run

Attributes = Mapping[str, Any]
CLOSE = 1e-3  # of the largest logit: both are sums of float32 in another order


class NoGradientError(ValueError):
    """A graph has an operator whose gradient is not implemented here; the message names it."""


class Differentiable:
    """Logits [N,K] of pixels float32 0..255 [N,C,H,W], with gradients; a whole number gives what the graph gives.

    Raises:
        NoGradientError: the graph holds another operator than those of an exported CNN (a quantised one, a tree).
    """

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path).graph
        self._constants = {
            value.name: torch.from_numpy(numpy_helper.to_array(value).copy()) for value in graph.initializer
        }
        self._input = graph.input[0].name
        self._nodes = []
        for node in graph.node:
            if node.op_type not in OPERATORS:
                raise NoGradientError(f"{path.name}: the gradient of operator {node.op_type} is not implemented")
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            self._nodes.append((OPERATORS[node.op_type], list(node.input), node.output[0], attributes))
            if node.output[0] == "logits":
                break

    def __call__(self, pixels: Tensor) -> Tensor:
        values = {**self._constants, self._input: pixels}
        for operator, inputs, output, attributes in self._nodes:
            values[output] = operator([values[name] for name in inputs], attributes)
        return values["logits"]


def differentiable(path: Path, images: np.ndarray) -> Differentiable:
    """The classifier at `path`, after its logits of `images` uint8 [N,C,H,W] were found equal to ONNX Runtime's.

    Raises:
        NoGradientError: see Differentiable; or the logits differ.
    """
    network = Differentiable(path)
    expected = run(open_graph(path), {"images": images})["logits"]
    with torch.no_grad():
        found = network(torch.from_numpy(images).float()).numpy()
    apart = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if not apart <= CLOSE * max(1.0, float(np.abs(expected).max())):
        raise NoGradientError(f"{path.name}: in PyTorch its logits differ by {apart:.3g} from ONNX Runtime's")
    return network


def _pads(attributes: Attributes) -> list[int]:
    """ONNX's begin and end of each axis, as PyTorch wants them: the last axis first."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return [left, right, top, bottom]


def _conv(x: list[Tensor], attributes: Attributes) -> Tensor:
    padded, weight, bias = F.pad(x[0], _pads(attributes)), x[1], x[2] if len(x) > 2 else None
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return F.conv2d(padded, weight, bias, stride, 0, dilation, attributes.get("group", 1))


def _max_pool(x: list[Tensor], attributes: Attributes) -> Tensor:
    padded = F.pad(x[0], _pads(attributes), value=-torch.inf)
    return F.max_pool2d(padded, attributes["kernel_shape"], attributes["strides"])


def _gemm(x: list[Tensor], attributes: Attributes) -> Tensor:
    weight = x[1] if attributes.get("transB", 0) else x[1].T
    return F.linear(x[0], weight, x[2])


def _reduce_mean(x: list[Tensor], attributes: Attributes) -> Tensor:
    return x[0].mean(dim=x[1].tolist(), keepdim=bool(attributes.get("keepdims", 1)))


OPERATORS: dict[str, Callable[[list[Tensor], Attributes], Tensor]] = {
    "Cast": lambda x, _: x[0],  # the pixels come as floats
    "Add": lambda x, _: x[0] + x[1],
    "Sub": lambda x, _: x[0] - x[1],
    "Mul": lambda x, _: x[0] * x[1],
    "Div": lambda x, _: x[0] / x[1],
    "Relu": lambda x, _: x[0].relu(),
    "Reshape": lambda x, _: x[0].reshape(x[1].tolist()),
    "Flatten": lambda x, _: x[0].flatten(1),
    "Conv": _conv,
    "MaxPool": _max_pool,
    "Gemm": _gemm,
    "ReduceMean": _reduce_mean,
}
