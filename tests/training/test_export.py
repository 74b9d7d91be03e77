from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from services.inference.bundle import Graph
from training.data import load
from training.evaluation.calibration import fit_temperature
from training.evaluation.conformal import set_threshold
from training.evaluation.runtime import open_graph, philox, run
from training.export import export_classifier, export_gan, export_graph, export_scorer
from training.graphs import Classify, Decode, Generate, Score, conformal_p_value
from training.networks.gan import GANConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig
from training.parity import BATCH_SIZES, ExportError, measure_parity, top1_agreement

SHAPE = (1, 6, 5)  # not square, so that no axis can stand for another


class Linear(nn.Module):
    """Logits linear in the pixels, `gain` times as large as PyTorch would start them."""

    def __init__(self, gain: float = 1.0, dropout: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(30, 10)
        self.layer.weight.data *= gain
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return F.dropout(logits, training=True) if self.dropout else logits


class LinearVAE(nn.Module):
    latent_size = 3

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.log_variance = nn.Linear(30, 3), nn.Linear(30, 3)
        self.decoder = nn.Linear(3, 30)
        self.decoder.weight.data *= gain

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(x.flatten(1)), self.log_variance(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        logits: Tensor = self.decoder(z).view(-1, *SHAPE)
        return logits


def images(count: int = 64, seed: int = 0) -> np.ndarray:
    """Random images with plenty of pixels at 0 and 255, where x log x is delicate."""
    drawn = philox(seed).integers(-128, 384, (count, *SHAPE))
    return drawn.clip(0, 255).astype(np.uint8)


def test_classifier_signature_and_parity(tmp_path: Path) -> None:
    graph = export_graph(Classify(Linear()), {"images": images()}, tmp_path / "classify.onnx")
    assert [(t.name, t.dtype, t.shape) for t in graph.inputs] == [("images", "uint8", ("N", *SHAPE))]
    assert [(t.name, t.dtype, t.shape) for t in graph.outputs] == [
        ("logits", "float32", ("N", 10)),
        ("probabilities", "float32", ("N", 10)),
    ]
    assert graph.opset == 20
    assert graph.parity.batch_sizes == BATCH_SIZES == (1, 3, 64)
    assert graph.parity.max_abs_diff <= graph.parity.bound
    assert graph.parity.top1_agreement == 1.0


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


def test_the_file_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    export_graph(Classify(Linear()), {"images": images()}, tmp_path / "classify.onnx")
    content = (tmp_path / "classify.onnx").read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b".py" not in content
    assert not list(tmp_path.glob("*.data")), "weights must be inside the file"


def test_export_is_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.WARNING):
        export_graph(Classify(Linear()), {"images": images()}, tmp_path / "classify.onnx")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_export_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = Linear().train()
    export_graph(Classify(network), {"images": images()}, tmp_path / "classify.onnx")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("gain", [1.0, 300.0])
def test_large_logits_stay_finite(tmp_path: Path, gain: float) -> None:
    """Written as Log(Sigmoid(logit)) the residual is infinite for logits below -88."""
    vae = LinearVAE(gain)
    with torch.no_grad():
        largest = vae.decode(vae.encode(torch.from_numpy(images()).float() / 255)[0]).abs().max()
    assert (largest > 150) == (gain == 300.0)
    export_graph(Score(vae), {"images": images()}, tmp_path / "score.onnx")
    outputs = run(open_graph(tmp_path / "score.onnx"), {"images": images()})
    assert np.isfinite(outputs["score"]).all()
    np.testing.assert_allclose(outputs["residual"], residual(vae, images()), rtol=1e-4, atol=1e-4)
    assert (outputs["residual"] >= 0).all()


def residual(vae: LinearVAE, images: np.ndarray) -> np.ndarray:
    """KL(Bern(x) || Bern(x_hat)) per pixel in float64, by NumPy's logaddexp."""
    x = images.astype(np.float64) / 255
    with torch.no_grad():
        logits = vae.decode(vae.encode(torch.from_numpy(images).float() / 255)[0]).double().numpy()
    cross_entropy = x * np.logaddexp(0, -logits) + (1 - x) * np.logaddexp(0, logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nan_to_num(x * np.log(x)) - np.nan_to_num((1 - x) * np.log(1 - x))
    total: np.ndarray = (cross_entropy - entropy).sum(axis=1)
    return total


def test_classifier_with_large_logits(tmp_path: Path) -> None:
    graph = export_graph(Classify(Linear(300.0)), {"images": images()}, tmp_path / "classify.onnx")
    outputs = run(open_graph(tmp_path / "classify.onnx"), {"images": images()})
    assert np.abs(outputs["logits"]).max() > 100
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert graph.parity.top1_agreement == 1.0


def test_dropout_left_on_stops_the_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"classify\.onnx: \w+ at batch \d+ differs from PyTorch by .*, bound "):
        export_graph(Classify(Linear(dropout=True)), {"images": images()}, tmp_path / "classify.onnx")


@pytest.mark.parametrize("change", [1e-2, np.nan])
def test_an_altered_graph_fails_parity(tmp_path: Path, change: float) -> None:
    path = tmp_path / "classify.onnx"
    network = Classify(Linear()).eval()
    export_graph(network, {"images": images()}, path)
    measure_parity(network, path, {"images": images()})
    alter(path, change)
    with pytest.raises(ExportError, match="logits at batch 1 differs"):
        measure_parity(network, path, {"images": images()})


def alter(path: Path, change: float) -> None:
    """Add `change` to the bias that is in the file."""
    model = onnx.load(path)
    [tensor] = [t for t in model.graph.initializer if tuple(t.dims) == (10,)]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(change), tensor.name))
    onnx.save(model, path)


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


@pytest.mark.slow
def test_temperature_and_threshold_are_fitted_on_splits_of_their_own(tmp_path: Path) -> None:
    digits = load("digits")
    assert digits.validation.labels is not None
    assert digits.calibration.labels is not None
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    graphs, constants = export_classifier(network, digits, tmp_path)
    temperature, threshold = constants["temperature"], constants["set_threshold"]
    assert temperature != 1
    session = open_graph(tmp_path / "classify.onnx")
    logits = run(session, {"images": digits.validation.images})["logits"] * temperature
    assert fit_temperature(logits, digits.validation.labels) == pytest.approx(temperature, rel=1e-4)
    outputs = run(session, {"images": digits.calibration.images})
    assert set_threshold(outputs["probabilities"], digits.calibration.labels, 0.95) == threshold
    assert constants["set_calibration_size"] == len(digits.calibration) == 272
    covered = outputs["prediction_set"][np.arange(272), digits.calibration.labels].sum()
    assert covered == 260, "ceil(273 * 0.95)"
    assert graphs["classify"].parity.top1_agreement == 1


def test_data_without_labels_cannot_calibrate(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="loose has no labels to calibrate with"):
        export_classifier(Linear(), unlabelled(load("digits")), tmp_path)


def test_agreement_is_the_share_of_equal_classes(tmp_path: Path) -> None:
    path = tmp_path / "classify.onnx"
    network = Linear()
    export_graph(Classify(network), {"images": images()}, path)
    many = images(300, seed=2)
    assert top1_agreement(Classify(network), path, many) == 1
    before = run(open_graph(path), {"images": many})["logits"].argmax(axis=1)
    network.layer.bias.data[3] += 0.3
    with torch.no_grad():
        after = network(torch.from_numpy(many).float() / 255).argmax(dim=1).numpy()
    assert 0 < (before == after).mean() < 1
    assert top1_agreement(Classify(network), path, many) == (before == after).mean()


class Levels(nn.Module):
    """Draws the grey level `level` / 255 everywhere, plus `offset` levels on the first `changed` pixels."""

    latent_size = 3

    def __init__(self, offset: float = 0.0, changed: int = 0) -> None:
        super().__init__()
        row = torch.full((SHAPE[1] * SHAPE[2],), 0.5)
        row[:changed] += offset / 255
        self.register_buffer("row", row)

    def draw(self, latents: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(self.row, Tensor)
        return (self.row + 0 * latents[:, :1] + 0 * labels[:, None]).view(-1, *SHAPE)


@pytest.mark.parametrize(("offset", "changed", "complaint"), [
    (-1e-3, 30, "0.00% of pixels at batch 1 are equal, bound 99.9%"),
    (1.0, 1, "pixels at batch 1 differs from PyTorch by 0.00392, bound 1e-05"),
    (2.0, 1, "images at batch 1 differs from PyTorch by 0.00784, bound 0.00392"),
])  # fmt: skip
def test_uint8_parity(tmp_path: Path, offset: float, changed: int, complaint: str) -> None:
    """0.5 * 255 = 127.5 lies on the edge of rounding (to even, 128): a thousandth of a level less moves it."""
    latents: Any = {"latents": philox(0).standard_normal((64, 3), dtype=np.float32), "labels": np.zeros(64, np.int64)}
    path = tmp_path / "decode.onnx"
    export_graph(Generate(Levels()), latents, path)
    with pytest.raises(ExportError, match=complaint):
        measure_parity(Generate(Levels(offset, changed)), path, latents)


def test_decoder_rounds_to_the_nearest_level(tmp_path: Path) -> None:
    latents = philox(0).standard_normal((64, 3), dtype=np.float32)
    graph = export_graph(Decode(LinearVAE()), {"latents": latents}, tmp_path / "decode.onnx")
    outputs = run(open_graph(tmp_path / "decode.onnx"), {"latents": latents})
    assert [t.dtype for t in graph.outputs] == ["uint8", "float32"]
    assert np.array_equal(outputs["images"], np.rint(outputs["pixels"] * np.float32(255)).astype(np.uint8))


@pytest.mark.parametrize("labelled", [True, False])
def test_gan_takes_labels_where_there_are_classes(tmp_path: Path, labelled: bool) -> None:
    digits = load("digits")
    dataset = digits if labelled else unlabelled(digits)
    torch.manual_seed(0)
    generator = GANConfig(generator_channels=8).build_generator(digits.image_shape, len(dataset.class_names) or 1)
    graph = export_gan(generator, dataset, tmp_path)["decode"]
    names = ["latents", "labels"] if labelled else ["latents"]
    assert [tensor.name for tensor in graph.inputs] == names
    assert graph.parity.max_abs_diff <= graph.parity.bound


def unlabelled(dataset: Any) -> Any:
    splits = (type(dataset.train)(getattr(dataset, role).images) for role in dataset.splits)
    return type(dataset)("loose", (), *splits)


@pytest.mark.parametrize("calibration", [[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0]])
def test_conformal_formula(calibration: list[float]) -> None:
    scores = np.array([0.0, 1.0, 2.0, 2.5, 4.0, 9.0], np.float32)
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    actual = conformal_p_value(torch.from_numpy(scores), torch.tensor(calibration))
    np.testing.assert_array_equal(actual.numpy(), np.array(expected, np.float32))


@dataclass(frozen=True)
class Scorer:
    """A scorer of an untrained VAE, and what it says of its own calibration images."""

    path: Path
    graph: Graph
    constants: dict[str, float]
    outputs: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    directory = tmp_path_factory.mktemp("scorer")
    digits = load("digits")
    torch.manual_seed(0)
    vae = VAEConfig(hidden=16).build(digits.image_shape)
    graphs, constants = export_scorer(vae, digits, directory)
    path = directory / "score.onnx"
    return Scorer(path, graphs["score"], constants, run(open_graph(path), {"images": digits.calibration.images}))


def test_calibration_images_get_exactly_the_ranks(scorer: Scorer) -> None:
    """The i-th largest (from 1) of n different calibration scores has p = (1 + i) / (n + 1)."""
    size = len(scorer.outputs["score"])
    assert len(np.unique(scorer.outputs["score"])) == size == 272
    expected = (np.arange(1, size + 1) + 1) / (size + 1)
    np.testing.assert_allclose(np.sort(scorer.outputs["p_value"]), expected, rtol=1e-6)
    np.testing.assert_array_equal(scorer.outputs["score"].argsort(), scorer.outputs["p_value"].argsort()[::-1])


def test_scorer_constants(scorer: Scorer) -> None:
    assert scorer.constants["calibration_size"] == 272
    assert scorer.constants["smallest_p_value"] == 1 / 273
    assert (scorer.outputs["residual"] > scorer.constants["residual_q99"]).mean() == pytest.approx(0.01, abs=1e-3)
    assert [tensor.name for tensor in scorer.graph.outputs] == ["score", "p_value", "residual"]


def test_score_is_the_sum_of_the_residuals(scorer: Scorer) -> None:
    total = scorer.outputs["residual"].astype(np.float64).sum(axis=(1, 2))
    np.testing.assert_allclose(scorer.outputs["score"], total, rtol=1e-5)


def test_new_images_follow_the_conformal_formula(scorer: Scorer) -> None:
    images = load("digits").test.images[:100]
    chequered = np.where(np.indices(images.shape[1:]).sum(axis=0) % 2, 255, 0).astype(np.uint8)[None]
    outputs = run(open_graph(scorer.path), {"images": np.concatenate([images, chequered])})
    calibration = scorer.outputs["score"]
    expected = [(1 + (calibration >= score).sum()) / 273 for score in outputs["score"]]
    np.testing.assert_allclose(outputs["p_value"], expected, rtol=1e-6)
    assert expected[-1] == scorer.constants["smallest_p_value"]
