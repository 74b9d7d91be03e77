from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from training.export.trace import export_graph
from training.export.wrappers import Classify
from training.graphs.gradient import NoGradientError, differentiable
from training.networks.cnn import CNNConfig
from training.networks.residual_cnn import ResidualCNNConfig

if TYPE_CHECKING:
    from conftest import Published


@pytest.mark.slow
@pytest.mark.parametrize("config", [CNNConfig(channels=(4, 8), hidden=8), ResidualCNNConfig(channels=4)])
def test_logits_and_gradients_are_those_of_the_network_that_was_exported(
    config: CNNConfig | ResidualCNNConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = config.build((3, 12, 16), 5).eval()
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 12, 16), dtype=np.uint8)
    export_graph(Classify(network, 1.7), {"images": images}, tmp_path / "classify.onnx")
    again = differentiable(tmp_path / "classify.onnx", images)

    pixels = torch.from_numpy(images).float().requires_grad_()
    (expected,) = torch.autograd.grad((network(pixels / 255) / 1.7)[:, 2].sum(), pixels)
    (found,) = torch.autograd.grad(again(pixels)[:, 2].sum(), pixels)
    assert expected.abs().max() > 0
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def graph(operator: str, path: Path, **attributes: int) -> Path:
    """images -> one operator -> logits."""
    node = helper.make_node(operator, ["pixels"], ["logits"], **attributes)
    cast = helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)
    shape = ["N", 1, 2, 2]
    model = helper.make_model(
        helper.make_graph(
            [cast, node],
            "g",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


def test_an_operator_without_gradient_here_is_named(tmp_path: Path) -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    with pytest.raises(NoGradientError, match=r"classify\.onnx: the gradient of operator Elu is not implemented"):
        differentiable(graph("Elu", tmp_path / "classify.onnx"), images)


def test_other_logits_than_onnx_runtimes_are_refused(tmp_path: Path) -> None:
    """A Flatten at axis 3 is not the one of a CNN."""
    images = np.full((2, 1, 2, 2), 9, np.uint8)
    path = graph("Flatten", tmp_path / "classify.onnx", axis=3)
    with pytest.raises(NoGradientError, match="its logits differ by inf"):
        differentiable(path, images)


def test_a_published_bundle_is_differentiable(published: Published) -> None:
    images = published.dataset.test.images[:16]
    network = differentiable(published.classifier.graph_path("classify"), images)
    assert network(torch.from_numpy(images).float()).shape == (16, 10)
