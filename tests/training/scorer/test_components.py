from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.training.scorer.conftest import Seal
from training.data import Dataset
from training.export.parity import as_shipped
from training.export.trace import trace
from training.graphs.inference import predict
from training.graphs.session import ExportError, open_graph, run
from training.scorer.components import FindDefects, Measure, Parts, features_of, pieces


@pytest.fixture(scope="module")
def defects(parts: Parts, digits: Dataset) -> onnx.ModelProto:
    return trace(as_shipped(FindDefects(parts.defects)), {"images": digits.test.images[:2]}, "defects")


def test_what_is_inside_is_known_by_role_and_digest(parts: Parts) -> None:
    assert parts.classifier is not None
    assert parts.digests == {
        "classifier": f"digits-cnn:{parts.classifier.digest}",
        "generator": f"digits-vae:{parts.generator.digest}",
    }
    assert parts.image_shape == (1, 28, 28)
    assert not parts.conditional
    assert parts.made() == ("images", "mean", "pixels", "defects", "logits", "features", "texture")
    assert replace(parts, classifier=None).made() == ("images", "mean", "pixels", "defects")


def test_one_graph_makes_what_each_part_makes(
    parts: Parts, digits: Dataset, defects: onnx.ModelProto, cnn: nn.Module
) -> None:
    images = digits.test.images[:70]  # more than one run takes
    made = Measure(parts, pieces(parts, defects, None))(images)
    assert set(made) == {*parts.made(), "label"}
    assert made["images"] is images
    encoded = run(open_graph(parts.generator.graph_path("encode")), {"images": images})
    decoded = run(open_graph(parts.generator.graph_path("decode")), {"latents": encoded["mean"]})
    assert parts.classifier is not None
    logits = predict(parts.classifier, images)["logits"]
    expected = {"mean": encoded["mean"], "pixels": decoded["pixels"], "logits": logits, "label": logits.argmax(axis=1)}
    assert isinstance(cnn.layers, nn.Sequential)
    with torch.no_grad():
        pixels = torch.from_numpy(images).float() / 255
        expected["defects"] = parts.defects(pixels).numpy()
        expected["texture"] = cnn.layers[:2](pixels).mean(dim=(2, 3)).numpy()
        expected["features"] = cnn.layers[:-1](pixels).numpy()
    for name, array in expected.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-4, atol=1e-4, err_msg=name)
    features = run(features_of(parts.classifier, "features"), {"images": images})["features"]
    np.testing.assert_allclose(features, made["features"], rtol=1e-4, atol=1e-5)


def test_a_classifier_that_does_not_convolve_is_refused(
    parts: Parts, digits: Dataset, defects: onnx.ModelProto, sealed: Seal
) -> None:
    torch.manual_seed(0)
    flat = sealed("cnn", nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval(), digits)
    with pytest.raises(ExportError, match="digits-cnn is not a convolutional network with a dense last layer"):
        pieces(replace(parts, classifier=flat), defects, None)
