"""The graph of a classifier in 8-bit integers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.data import Dataset
from training.data.arrays import Array, evenly_spaced
from training.graphs.session import CHUNK, open_graph, run
from training.metrics.calibration import fit_temperature
from training.metrics.conformal import set_threshold

CALIBRATION = 512  # training images for the ranges of activations


WEIGHTED = ("Conv", "Gemm", "MatMul")


BETWEEN = ("Add", "Relu", "MaxPool", "Reshape")  # quantised too, to avoid conversions to float32 between layers


SCALED = ("logits", "class_activation")  # what a temperature divides


class QuantizationError(ValueError):
    """A bundle cannot be quantised, or loses too much accuracy; the message gives the figures."""


def _quantize_graph(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
    """Unsigned 8-bit activations, signed 7-bit weights by channel.

    Weights have seven bits, because with eight the sum of two products would overflow 16 bits on AVX2, and a bundle
    must be correct on every machine.
    """
    with tempfile.TemporaryDirectory(prefix="duet-quantize-") as scratch, _quiet():
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        kept = _last_layers(model)
        if not any(node.op_type in WEIGHTED and node.name not in kept for node in model.graph.node):
            raise QuantizationError(
                f"{source.name} has no {' or '.join(WEIGHTED)} before its last layer, so there is nothing to quantise"
            )
        quantize_static(
            str(prepared),
            str(target),
            _Batches(images[evenly_spaced(len(images), CALIBRATION)]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*WEIGHTED, *BETWEEN],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=kept,
        )


def _last_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the last layers with weights, and of all that comes after them."""
    before: set[str] = set()  # tensors before a later layer with weights
    last = []
    for node in reversed(model.graph.node):
        ahead = any(output in before for output in node.output)
        if not ahead:
            last.append(node.name)
        if ahead or node.op_type in WEIGHTED:
            before.update(node.input)
    return last


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._parts = iter([images[start : start + CHUNK] for start in range(0, len(images), CHUNK)])

    def get_next(self) -> dict[str, Array] | None:
        part = next(self._parts, None)
        return None if part is None else {"images": part}


def _calibrate(path: Path, constants: dict[str, float], dataset: Dataset) -> dict[str, float]:
    """Fit temperature and threshold of the graph at `path` again, where it has them; the new constants."""
    validation, calibration = dataset.validation, dataset.calibration
    if "temperature" not in constants or validation.labels is None or calibration.labels is None:
        return constants
    model = onnx.load(path)
    factor = fit_temperature(run(open_graph(path), {"images": validation.images})["logits"], validation.labels)
    _divide(model, factor)
    onnx.save(model, path)
    changed = {"temperature": constants["temperature"] * factor}
    if "set_threshold" in constants:
        probabilities = run(open_graph(path), {"images": calibration.images})["probabilities"]
        threshold = set_threshold(probabilities, calibration.labels, constants["set_coverage"])
        _replace_threshold(model, threshold)
        onnx.save(model, path)
        changed["set_threshold"] = threshold
    return constants | changed


def _divide(model: onnx.ModelProto, factor: float) -> None:
    """Divide the outputs that a temperature divides by `factor`, before anything else reads them."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "temperature_of_int8"))
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for index, output in enumerate(node.output):
            if output in SCALED:
                node.output[index] = f"{output}_before"
                nodes.append(helper.make_node("Div", [f"{output}_before", "temperature_of_int8"], [output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _replace_threshold(model: onnx.ModelProto, threshold: float) -> None:
    (node,) = (node for node in model.graph.node if node.op_type == "GreaterOrEqual" and "probabilities" in node.input)
    node.input[1] = "threshold_of_int8"
    model.graph.initializer.append(numpy_helper.from_array(np.array(threshold, np.float32), "threshold_of_int8"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser's log, which advises steps that are already done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
