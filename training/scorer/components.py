"""The parts of a scorer: a classifier, a VAE and a defect network, joined into one graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from services.inference.bundle import Bundle
from training.data.arrays import Array
from training.graphs.session import ExportError, open_graph, run
from training.graphs.splice import Piece, before_dense, before_pool, splice
from training.networks.defect_unet import DefectUNet

OPSET = 20
CHUNK = 50  # images in a run: with more, the decoder's activations do not fit the processor's cache


@dataclass(frozen=True)
class Parts:
    """The networks of a scorer.

    Args:
        generator: bundle of a VAE of images of the same shape.
        defects: the defect network, trained on the same images.
        classifier: bundle of a classifier of the same classes; None for data without labels.
        views: a classifier of views that replaces `classifier`.
        coreset_size: normal images to which new images are compared.
    """

    generator: Bundle
    defects: DefectUNet
    classifier: Bundle | None = None
    views: Bundle | None = None
    coreset_size: int = 500

    @property
    def digests(self) -> dict[str, str]:
        """NAME:DIGEST of the bundles whose weights the scorer contains, by role."""
        bundles = {"classifier": self.classifier, "generator": self.generator, "views": self.views}
        return {role: f"{bundle.name}:{bundle.digest}" for role, bundle in bundles.items() if bundle is not None}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.generator.manifest.image.shape

    @property
    def conditional(self) -> bool:
        """Whether the VAE draws by class."""
        return any(tensor.name == "labels" for tensor in self.generator.manifest.graphs["decode"].inputs)

    def made(self) -> tuple[str, ...]:
        """Names of `images` and of the tensors that the parts compute from them."""
        classified = ("logits", "features", "texture") if self.classifier is not None else ()
        return ("images", "mean", "pixels", "defects", *classified, *(("views",) if self.views is not None else ()))


class FindDefects(nn.Module):
    """Images uint8 [N,C,H,W] to the defect network's logits [N,H,W]."""

    outputs = ("defects",)

    def __init__(self, network: DefectUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images.float() / 255),)


def pieces(parts: Parts, defects: onnx.ModelProto, views: onnx.ModelProto | None) -> list[Piece]:
    """The parts' graphs, from `images` to the tensors of `parts.made()`, and `label` where there is a classifier.

    A conditional VAE decodes as the class that the classifier predicts, so it decodes once instead of K times.

    Args:
        parts: the networks.
        defects: `FindDefects`, exported.
        views: `Views`, exported; where `parts` has a classifier of views.

    Raises:
        ExportError: a part does not fit the others.
    """
    found = [Piece("defects", defects, {"images": "images", "defects": "defects"})]
    if parts.classifier is not None:
        found += _classifier(parts.classifier)
    if parts.views is not None and views is not None:
        found += [Piece("views", views, {"images": "images", "views": "view_images"}), *_views(parts.views)]
    generator = parts.generator
    encode, decode = (onnx.load(generator.graph_path(graph)) for graph in ("encode", "decode"))
    if parts.conditional and parts.classifier is None:
        raise ExportError(f"{generator.name} draws by class and needs a classifier of the class; give --classifier")
    found.append(Piece("encode", encode, {"images": "images", "mean": "mean"}))
    labels = {"labels": "label"} if parts.conditional else {}
    found.append(Piece("decode", decode, {"latents": "mean", "pixels": "pixels", **labels}))
    return found


def _classifier(bundle: Bundle) -> list[Piece]:
    model = onnx.load(bundle.graph_path("classify"))
    features, maps = before_dense(model.graph, "logits"), before_pool(model.graph)
    if features is None or maps is None:
        raise ExportError(
            f"{bundle.name} is not a convolutional network with a dense last layer, so it has no features to compare; "
            "give a bundle from `duet train --network cnn`"
        )
    names = {"images": "images", "logits": "logits", features: "features", maps: "maps"}
    pool = [helper.make_node("GlobalAveragePool", ["maps"], ["mean"]), helper.make_node("Flatten", ["mean"], ["out"])]
    first = [helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])  # an inferred axis would have no name
    return [
        Piece("classifier", model, names),
        Piece("pool", _nodes(pool), {"maps": "maps", "out": "texture"}),
        Piece("first", _nodes(first, outputs=[label]), {"logits": "logits", "label": "label"}),
    ]


def _views(bundle: Bundle) -> list[Piece]:
    model = onnx.load(bundle.graph_path("classify"))
    features = before_dense(model.graph, "logits")
    if features is None:
        raise ExportError(f"{bundle.name} has no dense last layer, so it has no features to compare; train it again")
    apart = helper.make_node("Reshape", ["flat", "shape"], ["views"])
    views = len(bundle.manifest.class_names)
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, views, _width(model.graph, views)])
    return [
        Piece("view_classifier", model, {"images": "view_images", features: "view_features"}),
        Piece("apart", _nodes([apart], [shape]), {"flat": "view_features", "views": "views"}),
    ]


def _width(graph: onnx.GraphProto, classes: int) -> int:
    """The number of inputs of the last dense layer, whose weights may be transposed."""
    dense = next(node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul"))
    weight = next(tensor for tensor in graph.initializer if tensor.name == dense.input[1])
    return int(math.prod(weight.dims)) // classes


def _nodes(
    nodes: list[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "glue", [], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def features_of(bundle: Bundle, *names: str) -> onnxruntime.InferenceSession:
    """A classifier's graph alone, with inner tensors as outputs: logits, features, texture."""
    model = splice(_classifier(bundle), [images_input(bundle.manifest.image.shape)], names)
    return open_graph(model.SerializeToString())


def images_input(shape: tuple[int, int, int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *shape])


class Measure:
    """The parts as one graph on ONNX Runtime, before statistics are fitted to its outputs."""

    def __init__(self, parts: Parts, found: list[Piece]) -> None:
        self.names = parts.made()[1:]
        labelled = ("label",) if parts.classifier is not None else ()
        model = splice(found, [images_input(parts.image_shape)], [*self.names, *labelled])
        self._session = open_graph(model.SerializeToString())

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, Array]:
        """The outputs of the parts for images uint8 [N,C,H,W], by name, and the images themselves."""
        return {"images": images, **run(self._session, {"images": images}, chunk=CHUNK)}
