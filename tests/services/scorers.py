"""Scorers of 4 x 4 images whose answers can be told by hand, as real bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.inference.bundle import Bundle, Data, Graph, Image, Manifest, Parity, Tensor, seal

CLASSES = ("dark", "grey", "light")
SHARES = (0.5, 0.3, 0.2)
OUTPUTS = {
    "score": ("float32", ("N",)),
    "p_value": ("float32", ("N",)),
    "residual": ("float32", ("N", 4, 4)),
    "label": ("int64", ("N",)),
    "class_p_value": ("float32", ("N",)),
    "statistics": ("float32", ("N", 2)),
    "look_alike": ("uint8", ("N", 1, 4, 4)),
}
PLAIN = ("score", "p_value", "residual")
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


def graph(size: int, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """The score is the mean pixel; calibration images have scores of 200 i / size, and classes take turns at them.

    The label is where the brightest of the first three pixels is; residual: pixels / 100, so more than 100 is unusual;
    statistics: -log of the p-value and of that of the class; look_alike: the negative.
    """
    counts = [round(share * size) for share in SHARES]
    by_class = np.full((len(CLASSES), max(counts)), -1, np.float32)  # below any score
    for row, count in zip(by_class, counts, strict=True):
        row[:count] = 200 / count * np.arange(1, count + 1)
    weights: dict[str, np.ndarray] = {
        "calibration": (200 / size * np.arange(1, size + 1)).astype(np.float32),
        "by_class": by_class,
        "size": np.array(size + 1, np.float32),
        "sizes": np.array(counts, np.float32) + 1,
        "one": np.array(1, np.float32),
        "unusual": np.array(100, np.float32),
        "white": np.array(255, np.uint8),
        "first": np.array([0], np.int64),
        "last": np.array([1], np.int64),
        "map": np.array([0, 4, 4], np.int64),
        "start": np.array([0], np.int64),
        "three": np.array([3], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("Flatten", ["pixels"], ["flat"]),
        node("ReduceMean", ["flat", "last"], ["score"], keepdims=0),
        node("Unsqueeze", ["score", "last"], ["column"]),
        node("GreaterOrEqual", ["calibration", "column"], ["stranger"]),
        node("Cast", ["stranger"], ["ones"], to=TensorProto.FLOAT),
        node("ReduceSum", ["ones", "last"], ["count"], keepdims=0),
        node("Add", ["count", "one"], ["more"]),
        node("Div", ["more", "size"], ["p_value"]),
        node("Reshape", ["pixels", "map"], ["grey"]),
        node("Div", ["grey", "unusual"], ["residual"]),
        node("Slice", ["flat", "start", "three", "last"], ["corner"]),
        node("ArgMax", ["corner"], ["label"], axis=1, keepdims=0),
        node("Gather", ["by_class", "label"], ["peers"]),
        node("GreaterOrEqual", ["peers", "column"], ["strangers"]),
        node("Cast", ["strangers"], ["class_ones"], to=TensorProto.FLOAT),
        node("ReduceSum", ["class_ones", "last"], ["class_count"], keepdims=0),
        node("Add", ["class_count", "one"], ["class_more"]),
        node("Gather", ["sizes", "label"], ["class_size"]),
        node("Div", ["class_more", "class_size"], ["class_p_value"]),
        node("Log", ["p_value"], ["log"]),
        node("Log", ["class_p_value"], ["class_log"]),
        node("Neg", ["log"], ["nats"]),
        node("Neg", ["class_log"], ["class_nats"]),
        node("Unsqueeze", ["nats", "last"], ["left"]),
        node("Unsqueeze", ["class_nats", "last"], ["right"]),
        node("Concat", ["left", "right"], ["statistics"], axis=1),
        node("Sub", ["white", "images"], ["look_alike"]),
    ]
    made = helper.make_graph(
        nodes,
        "score",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 4, 4])],
        [helper.make_tensor_value_info(name, TYPES[OUTPUTS[name][0]], OUTPUTS[name][1]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def scorer_bundle(
    directory: Path,
    *,
    size: int = 400,
    outputs: tuple[str, ...] = tuple(OUTPUTS),
    statistics: tuple[str, ...] = ("brightness", "brightness of its class"),
    name: str = "tiny-scorer",
) -> Bundle:
    """Sealed in a new `directory`; with `size` calibration images and these outputs."""
    directory.mkdir(parents=True)
    onnx.save(graph(size, outputs), directory / "score.onnx")
    shares = {f"class_share/{index}": share for index, share in enumerate(SHARES)} if "label" in outputs else {}
    described = tuple(Tensor(name=name, dtype=OUTPUTS[name][0], shape=OUTPUTS[name][1]) for name in outputs)  # type: ignore[arg-type]
    images = Tensor(name="images", dtype="uint8", shape=("N", 1, 4, 4))
    parity = Parity(batch_sizes=(), max_abs_diff=0, bound=0)
    manifest = Manifest(
        name=name,
        task="anomaly",
        network="by hand",
        recipe="by hand",
        seed=0,
        dataset=Data(name="none", digest="0" * 64, splits={}),
        image=Image(channels=1, height=4, width=4),
        class_names=CLASSES,
        constants={"calibration_size": size, "smallest_p_value": 1 / (size + 1), "residual_q99": 1.0} | shares,
        statistics=statistics if "statistics" in outputs else (),
        graphs={"score": Graph(file="score.onnx", opset=20, inputs=(images,), outputs=described, parity=parity)},
        metrics={},
        versions={"onnx": "1.0"},
    )
    return seal(directory, manifest)


def shade(*levels: int, label: int = 0) -> np.ndarray:
    """Images uint8 [N,1,4,4] of one level each, but one more where that makes them resemble the class `label`."""
    images = np.ones((1, 1, 4, 4), np.uint8) * np.array(levels, np.uint8)[:, None, None, None]
    images[:, 0, 0, label] += 1
    return images
