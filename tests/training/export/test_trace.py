"""What export writes: files that hold everything, with signatures, and constants fitted on splits of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.linear import SHAPE, Linear, images
from training.data import load
from training.export.classifier import export_classifier
from training.export.generators import export_gan
from training.export.parity import BATCH_SIZES
from training.export.trace import export_graph
from training.export.wrappers import Classify
from training.graphs.session import ExportError, open_graph, run
from training.metrics.calibration import fit_temperature
from training.metrics.conformal import set_threshold
from training.networks.gan import GANConfig


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
    exported = export_classifier(network, digits, tmp_path)
    graphs, constants = exported.graphs, exported.constants
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
    graph = export_gan(generator, dataset, tmp_path).graphs["decode"]
    names = ["latents", "labels"] if labelled else ["latents"]
    assert [tensor.name for tensor in graph.inputs] == names
    assert graph.parity.max_abs_diff <= graph.parity.bound


def unlabelled(dataset: Any) -> Any:
    splits = (type(dataset.train)(getattr(dataset, role).images) for role in dataset.splits)
    return type(dataset)("loose", (), *splits)
