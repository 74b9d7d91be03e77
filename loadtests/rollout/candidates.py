"""Versions of one classifier, trained in a second: a good one, its successor, and three that must not be promoted."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from loadtests.bench import cores
from services.inference import bundle, registry
from services.inference.bundle import Bundle, Data, Graph, Image, Manifest, Parity, Tensor, seal
from services.inference.session import Session
from training.data.digits import load_digits

NAME = "digits-linear"
WIDTH = 1024  # of the layers that only take time
LAYERS = 30
BATCHES = (1, 3)


def make(home: Path) -> dict[str, Bundle]:
    """The versions, stored in `home`, by what they are."""
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "loadtests.rollout.candidates"]
    run = subprocess.run(command, env=environment, cwd=cores.ROOT, check=True, stdout=subprocess.PIPE)
    versions = json.loads(run.stdout)
    return {what: bundle.load(home / "models" / NAME / version) for what, version in versions.items()}


def train() -> dict[str, str]:
    """Train all versions and store them where BENTOML_HOME says; their versions by what they are.

    Published bundles pass gates on their accuracy, which two of these would miss: they are sealed by hand.
    """
    digits = load_digits()
    assert digits.train.labels is not None
    labels = digits.train.labels
    fits = {
        "old": (labels, 0.01, 0),
        "new": (labels, 0.1, 0),
        "slow": (labels, 0.1, LAYERS),
        "trained on permuted labels": (np.random.default_rng(0).permutation(labels), 0.01, 0),
        "trained on renamed classes": ((labels + 3) % len(digits.class_names), 0.1, 0),
    }
    data = Data(name=digits.name, digest=digits.digest, splits=digits.splits)
    pixels = digits.train.images.reshape(len(labels), -1) / np.float32(255)
    versions = {}
    for what, (known, strength, layers) in fits.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early, which is good enough here
            model = LogisticRegression(C=strength, max_iter=60).fit(pixels, known)
        with tempfile.TemporaryDirectory() as folder:
            versions[what] = registry.store(_seal(Path(folder), model, layers, digits.class_names, data)).version
    return versions


def _seal(folder: Path, model: LogisticRegression, layers: int, names: tuple[str, ...], data: Data) -> Bundle:
    onnx.save(_graph(model, layers), folder / "classify.onnx")
    images = Tensor(name="images", dtype="uint8", shape=("N", 1, 28, 28))
    outputs = tuple(Tensor(name=name, dtype="float32", shape=("N", 10)) for name in ("logits", "probabilities"))
    noise = np.random.default_rng(1).integers(0, 256, (max(BATCHES), 1, 28, 28), np.uint8)
    session = Session(folder / "classify.onnx")
    apart = max(
        float(np.abs(session.run({"images": noise[:n]})["probabilities"] - _probabilities(model, noise[:n])).max())
        for n in BATCHES
    )
    parity = Parity(batch_sizes=BATCHES, max_abs_diff=apart, bound=1e-4, top1_agreement=1.0)
    graph = Graph(file="classify.onnx", opset=20, inputs=(images,), outputs=outputs, parity=parity)
    return seal(
        folder,
        Manifest(
            name=NAME,
            task="classification",
            network="logistic",
            recipe="rollout",
            seed=0,
            dataset=data,
            image=Image(channels=1, height=28, width=28),
            class_names=names,
            graphs={"classify": graph},
            metrics={},
            versions={"onnx": onnx.__version__},
        ),
    )


def _probabilities(model: LogisticRegression, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_proba(images.reshape(len(images), -1) / 255))


def _graph(model: LogisticRegression, layers: int) -> onnx.ModelProto:
    """Logistic regression on the pixels; `layers` products of matrices, times zero, are added to the logits."""
    arrays = {
        "scale": np.float32(255),
        "weights": model.coef_.T.astype(np.float32),
        "bias": model.intercept_.astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Div", ["flat", "scale"], ["unit"]),
        helper.make_node("Gemm", ["unit", "weights", "bias"], ["logits" if not layers else "scores"]),
    ]
    if layers:
        random = np.random.default_rng(2)
        arrays |= {
            "first": random.normal(0, 1 / 28, (784, WIDTH)).astype(np.float32),
            "square": random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32),
            "last": np.zeros((WIDTH, 10), np.float32),
        }
        nodes.append(helper.make_node("MatMul", ["unit", "first"], ["layer0"]))
        nodes += [helper.make_node("MatMul", [f"layer{i}", "square"], [f"layer{i + 1}"]) for i in range(layers)]
        nodes.append(helper.make_node("MatMul", [f"layer{layers}", "last"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["scores", "nothing"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 28, 28])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 10]) for name in ("logits", "probabilities")
    ]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "classify", [images], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


if __name__ == "__main__":
    print(json.dumps(train()))
