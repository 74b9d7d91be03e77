"""What export writes: files that hold everything, with signatures, and constants fitted on splits of their own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from services.inference.bundle import Graph
from tests.training.linear import SHAPE, Linear, images
from training.data import load
from training.evaluation.calibration import fit_temperature
from training.evaluation.conformal import set_threshold
from training.evaluation.runtime import open_graph, run
from training.export import export_classifier, export_gan, export_graph, export_scorer
from training.graphs import Classify
from training.networks.gan import GANConfig
from training.networks.vae import VAEConfig
from training.parity import BATCH_SIZES, ExportError


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
