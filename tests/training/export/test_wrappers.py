"""What an exported graph computes: the arithmetic of its network, finite where that is extreme."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from tests.training.linear import Linear, LinearVAE, images
from training.data.arrays import philox
from training.export.parity import measure_parity
from training.export.trace import export_graph
from training.export.wrappers import Classify, Decode, LogJoint
from training.graphs.session import ExportError, open_graph, run
from training.networks.class_prior import ClassPrior
from training.networks.conditional_vae import ConditionalVAEConfig, Likelihood
from training.networks.residual_cnn import ResidualCNNConfig


def test_graph_agrees_with_float64_arithmetic(tmp_path: Path) -> None:
    network = Linear()
    export_graph(Classify(network), {"images": images()}, tmp_path / "classify.onnx")
    outputs = run(open_graph(tmp_path / "classify.onnx"), {"images": images(5, seed=1)})
    weight, bias = (p.detach().double().numpy() for p in (network.layer.weight, network.layer.bias))
    logits = images(5, seed=1).reshape(5, -1) / 255 @ weight.T + bias
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(
        outputs["probabilities"], np.exp(logits) / np.exp(logits).sum(1, keepdims=True), atol=1e-6
    )


def test_classifier_with_large_logits(tmp_path: Path) -> None:
    graph = export_graph(Classify(Linear(300.0)), {"images": images()}, tmp_path / "classify.onnx")
    outputs = run(open_graph(tmp_path / "classify.onnx"), {"images": images()})
    assert np.abs(outputs["logits"]).max() > 100
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert graph.parity.top1_agreement == 1.0


def residual_cnn() -> nn.Module:
    """With gains, means and biases that are not those of the start."""
    torch.manual_seed(0)
    network = ResidualCNNConfig(8, blocks=2).build((1, 28, 30), 10)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    network(torch.rand(64, 1, 28, 30))  # moves the running means
    return network.eval()


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_class_activations_mean_the_logits(tmp_path: Path, temperature: float) -> None:
    network = residual_cnn()
    pixels = philox(0).integers(0, 256, (64, 1, 28, 30), dtype=np.uint8)
    graph = export_graph(Classify(network, temperature), {"images": pixels}, tmp_path / "classify.onnx")
    assert [(t.name, t.dtype, t.shape) for t in graph.outputs][2:] == [("class_activation", "float32", ("N", 10, 7, 7))]
    outputs = run(open_graph(tmp_path / "classify.onnx"), {"images": pixels})
    bias = network.classify.bias.detach().numpy() / temperature  # type: ignore[union-attr,operator]
    maps = outputs["class_activation"].astype(np.float64)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, outputs["logits"], rtol=1e-5, atol=1e-5)
    assert maps.std(axis=(2, 3)).min() > 1e-3, "no map is flat"
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).float() / 255).numpy() / temperature
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-4, atol=1e-4)


def test_a_temperature_divides_the_logits(tmp_path: Path) -> None:
    plain, cooled = (
        run(open_graph(path), {"images": images()})
        for temperature, path in ((1.0, tmp_path / "1.onnx"), (0.25, tmp_path / "4.onnx"))
        if export_graph(Classify(Linear(), temperature), {"images": images()}, path)
    )
    np.testing.assert_allclose(cooled["logits"], 4 * plain["logits"], rtol=1e-5)
    powers = np.exp(4 * plain["logits"])
    np.testing.assert_allclose(cooled["probabilities"], powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_prediction_set_has_the_classes_from_the_threshold_on(tmp_path: Path) -> None:
    path = tmp_path / "classify.onnx"
    graph = export_graph(Classify(Linear(), threshold=0.125), {"images": images()}, path)
    assert [(t.name, t.dtype, t.shape) for t in graph.outputs][2:] == [("prediction_set", "uint8", ("N", 10))]
    outputs = run(open_graph(path), {"images": images(500, seed=1)})
    assert np.array_equal(outputs["prediction_set"], outputs["probabilities"] >= np.float32(0.125))
    assert len(np.unique(outputs["prediction_set"].sum(axis=1))) > 1
    with pytest.raises(ExportError, match="prediction_set at batch 1 differs from PyTorch by 1"):
        measure_parity(Classify(Linear(), threshold=0.05).eval(), path, {"images": images()})


def test_decoder_rounds_to_the_nearest_level(tmp_path: Path) -> None:
    latents = philox(0).standard_normal((64, 3), dtype=np.float32)
    graph = export_graph(Decode(LinearVAE()), {"latents": latents}, tmp_path / "decode.onnx")
    outputs = run(open_graph(tmp_path / "decode.onnx"), {"latents": latents})
    assert [t.dtype for t in graph.outputs] == ["uint8", "float32"]
    assert np.array_equal(outputs["images"], np.rint(outputs["pixels"] * np.float32(255)).astype(np.uint8))


@pytest.mark.parametrize("likelihood", ["bernoulli", "grey", "logistic"])
def test_log_joint_is_the_importance_weighted_bound(tmp_path: Path, likelihood: Likelihood) -> None:
    torch.manual_seed(0)
    config = ConditionalVAEConfig(latent_size=5, channels=8, neck=4, hidden=16, likelihood=likelihood)
    vae = config.build((1, 8, 8), classes=3).eval()
    random = philox(1)
    factors = np.tril(random.standard_normal((3, 5, 5))) + 3 * np.eye(5)
    prior = ClassPrior(random.standard_normal((3, 5)), factors)
    noise = torch.from_numpy(random.standard_normal((4, 5), dtype=np.float32))
    pixels = random.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    export_graph(LogJoint(vae, prior, noise), {"images": pixels}, tmp_path / "log_joint.onnx")
    found = run(open_graph(tmp_path / "log_joint.onnx"), {"images": pixels})["log_joint"]

    x = torch.from_numpy(pixels) / 255
    with torch.no_grad():
        mean, log_variance = vae.encode(x)
        posterior = Normal(mean, (0.5 * log_variance).exp())
        for label in range(3):
            given = MultivariateNormal(prior.means[label], scale_tril=prior.factors[label])
            weights = []
            for draw in noise:
                z = posterior.mean + posterior.stddev * draw
                decoded = vae.decode(z, torch.full((64,), label))
                outside = given.log_prob(z) - posterior.log_prob(z).sum(dim=1)
                weights.append(vae.log_likelihood(x, decoded) + outside)
            expected = torch.stack(weights).logsumexp(dim=0) - math.log(4) - math.log(3)
            np.testing.assert_allclose(found[:, label], expected.numpy(), atol=1e-2, rtol=1e-4)
