"""Bundles for colour images of any side whose graph costs little, to see what the bytes alone cost."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.inference import bundle

CLASSES = 10
OPSET = 20


def graph(side: int) -> onnx.ModelProto:
    """uint8 [N,3,side,side] -> one strided convolution, mean over the image, a dense layer: logits, probabilities."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "scale": np.array(1 / 255, np.float32),
        "filters": random.normal(0, 0.1, (8, 3, 8, 8)).astype(np.float32),
        "dense": random.normal(0, 1, (8, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "filters"], ["features"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "colour",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, side, side])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CLASSES]) for name in OUTPUTS],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


OUTPUTS = ("logits", "probabilities")


def bundle_of(side: int, directory: Path) -> bundle.Bundle:
    """A sealed classifier of colour images in `directory`; it was trained on nothing, and says so."""
    directory.mkdir(parents=True)
    onnx.save(graph(side), directory / "classify.onnx")
    classes = tuple(bundle.Tensor(name=name, dtype="float32", shape=("N", CLASSES)) for name in OUTPUTS)
    manifest = bundle.Manifest(
        name=f"colour-{side}",
        task="classification",
        network="one convolution, random weights",
        recipe="none",
        seed=0,
        dataset=bundle.Data(name="none", digest="", splits={}),
        image=bundle.Image(channels=3, height=side, width=side),
        class_names=tuple("0123456789"),
        graphs={
            "classify": bundle.Graph(
                file="classify.onnx",
                opset=OPSET,
                inputs=(bundle.Tensor(name="images", dtype="uint8", shape=("N", 3, side, side)),),
                outputs=classes,
                # Written as ONNX: there is no PyTorch module to differ from.
                parity=bundle.Parity(batch_sizes=(), max_abs_diff=0, bound=0),
            )
        },
        metrics={},
        versions={library: version(library) for library in ("onnx", "onnxruntime", "numpy")},
    )
    return bundle.seal(directory, manifest)
