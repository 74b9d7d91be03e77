"""A bundle small enough to build in every test, and a model store that is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from onnx import TensorProto, helper, numpy_helper

from services.inference.bundle import Bundle, Data, Graph, Image, Manifest, Parity, Tensor, seal

MakeBundle = Callable[..., Bundle]


def linear_classifier(weights: np.ndarray) -> onnx.ModelProto:
    """uint8 images [N,1,2,2] -> logits, probabilities [N,3], as the contract wants them."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2, 2])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("logits", "probabilities")]
    graph = helper.make_graph(nodes, "classify", [images], outputs, [numpy_helper.from_array(weights, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="session")
def draft() -> Manifest:
    """What a trainer knows of the tiny classifier before it is sealed."""
    images = Tensor(name="images", dtype="uint8", shape=("N", 1, 2, 2))
    outputs = tuple(Tensor(name=name, dtype="float32", shape=("N", 3)) for name in ("logits", "probabilities"))
    parity = Parity(batch_sizes=(1, 2), max_abs_diff=1e-7, bound=1e-5, top1_agreement=1.0)
    return Manifest(
        name="tiny-linear",
        task="classification",
        network="linear",
        recipe="by hand",
        seed=0,
        dataset=Data(name="none", digest="0" * 64, splits={"train": 0}),
        image=Image(channels=1, height=2, width=2),
        class_names=("a", "b", "c"),
        graphs={
            "classify": Graph(file="classify.onnx", opset=20, inputs=(images,), outputs=outputs, parity=parity),
        },
        metrics={"accuracy": 0.5},
        versions={"onnx": "1.0"},
    )


@pytest.fixture
def make_bundle(tmp_path: Path, draft: Manifest) -> MakeBundle:
    """Seal a tiny classifier; another `weight` gives another digest, other fields go into the manifest."""

    def make(folder: str = "tiny", *, weight: float = 1.0, **fields: object) -> Bundle:
        directory = tmp_path / folder
        directory.mkdir()
        onnx.save(linear_classifier(np.full((4, 3), weight, np.float32)), directory / "classify.onnx")
        (directory / "card.md").write_text("A classifier that nobody trained.\n")
        return seal(directory, draft.model_copy(update=fields))

    return make


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[Path]:
    """BentoML's model store in a folder of this test: BENTOML_HOME is read at import, so the container is told."""
    path = tmp_path / "models"
    path.mkdir()
    BentoMLContainer.model_store.set(ModelStore(path))
    yield path
    BentoMLContainer.model_store.reset()
