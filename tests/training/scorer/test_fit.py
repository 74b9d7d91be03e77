"""What is fitted on which split, and that a scorer is of the parts that it was calibrated with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from services.inference.bundle import Bundle
from tests.training.scorer.conftest import Made, Seal
from training.data import Dataset
from training.export.parity import as_shipped
from training.export.trace import trace
from training.graphs.session import ExportError
from training.graphs.splice import Piece
from training.kinds import product_of
from training.publishing.quantize import quantize
from training.scorer.components import FindDefects, Measure, Parts, pieces
from training.scorer.export import export_scorer
from training.scorer.fit import Scorer, assemble, calibrated, filled, fit, unmeasured


@pytest.fixture(scope="module")
def found(parts: Parts, digits: Dataset) -> list[Piece]:
    defects = trace(as_shipped(FindDefects(parts.defects)), {"images": digits.test.images[:2]}, "defects")
    return pieces(parts, defects, None)


@pytest.fixture(scope="module")
def measure(parts: Parts, found: list[Piece]) -> Measure:
    return Measure(parts, found)


@pytest.fixture(scope="module")
def fitted(parts: Parts, digits: Dataset, measure: Measure) -> Scorer:
    return fit(parts, digits, measure)


def test_calibration_and_test_images_are_not_looked_at(
    parts: Parts, digits: Dataset, measure: Measure, fitted: Scorer
) -> None:
    blank = {
        role: replace(getattr(digits, role), images=np.zeros_like(getattr(digits, role).images))
        for role in ("calibration", "test")
    }
    again = fit(parts, replace(digits, **blank), measure).fuse.state_dict()
    assert all(torch.equal(again[name], value) for name, value in fitted.fuse.state_dict().items())


def test_ranks_are_those_of_validation_images(digits: Dataset, measure: Measure, fitted: Scorer) -> None:
    """The surprise of a one-sided statistic is at least s in a share exp(-s) of the images."""
    made = measure(digits.validation.images)
    given = {name: torch.from_numpy(made[name]) for name in fitted.parts.made()}
    with torch.no_grad():
        results = fitted.fuse(**given)
    surprises = dict(zip(fitted.fuse.outputs, results, strict=True))["statistics"]
    for share in (0.5, 0.8):
        assert ((surprises >= -np.log(share)).float().mean(dim=0) - share).abs().max() <= 0.05


def test_calibrating_adds_p_values_and_changes_nothing_else(fitted: Scorer) -> None:
    scores, labels = np.array([3, 1, 2], np.float32), np.array([0, 0, 4])
    assert fitted.fuse.outputs == ("score", "residual", "statistics", "look_alike")
    unlabelled, both = calibrated(fitted, scores, None), calibrated(fitted, scores, labels)
    assert unlabelled.fuse.outputs == ("score", "p_value", "residual", "statistics", "look_alike")
    assert both.fuse.outputs == ("score", "p_value", "class_p_value", "residual", "statistics", "look_alike")
    assert both.fuse.counts.tolist() == [2, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    before, after = fitted.fuse.state_dict(), both.fuse.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert both.digests == fitted.digests


def test_without_a_classifier_there_are_no_classes(parts: Parts, digits: Dataset, found: list[Piece]) -> None:
    alone = replace(parts, classifier=None)
    scorer = fit(alone, digits, Measure(alone, found))
    assert scorer.fuse.classes == 0
    assert "class_p_value" not in calibrated(scorer, np.zeros(3, np.float32), None).fuse.outputs


def test_a_table_that_the_exporter_did_not_keep_is_named(fitted: Scorer) -> None:
    empty = unmeasured(fitted, 3)
    known = calibrated(fitted, np.array([3, 1, 2], np.float32), np.array([0, 0, 4]))
    with pytest.raises(ExportError, match="score: 0 constants of the exported graph hold the table scores, not one"):
        filled(onnx.ModelProto(), empty.fuse, known.fuse)


def refused(fitted: Scorer, found: list[Piece], other: Bundle) -> None:
    """The other classifier's scorer is refused with both digests."""
    then = fitted.parts.classifier
    assert then is not None
    assert other.digest != then.digest
    changed = replace(fitted, parts=replace(fitted.parts, classifier=other))
    with pytest.raises(ExportError) as caught:
        assemble(changed, found, found[0].model)
    assert f"the classifier is {other.name}:{other.digest}" in str(caught.value)
    assert f"was calibrated with digits-cnn:{then.digest}; calibrate it again" in str(caught.value)


def test_a_retrained_classifier_in_place_is_refused(
    fitted: Scorer, found: list[Piece], cnn: nn.Module, digits: Dataset, sealed: Seal
) -> None:
    refused(fitted, found, sealed("cnn", nn.Sequential(cnn, nn.Hardtanh(-9, 9)), digits))


@pytest.mark.slow
def test_an_int8_twin_in_place_is_refused(fitted: Scorer, found: list[Piece], digits: Dataset, tmp_path: Path) -> None:
    assert fitted.parts.classifier is not None
    twin, _ = quantize(product_of(fitted.parts.classifier.manifest), fitted.parts.classifier, digits, tmp_path)
    refused(fitted, found, twin)


def test_another_vae_or_a_missing_part_is_refused(fitted: Scorer, found: list[Piece]) -> None:
    parts = fitted.parts
    manifest = parts.generator.manifest.model_copy(update={"digest": "f" * 64})
    other = replace(fitted, parts=replace(parts, generator=Bundle(parts.generator.path, manifest)))
    with pytest.raises(ExportError, match=r"the generator is digits-vae:f{64}, but .* digits-vae:[0-9a-f]{64};"):
        assemble(other, found, found[0].model)
    with pytest.raises(ExportError, match=r"the classifier is None, but the scorer was calibrated with digits-cnn:"):
        assemble(replace(fitted, parts=replace(parts, classifier=None)), found, found[0].model)


def test_the_same_parts_give_the_same_bytes(scorer: Made, parts: Parts, digits: Dataset, tmp_path: Path) -> None:
    export_scorer(parts, digits, tmp_path)
    assert (tmp_path / "score.onnx").read_bytes() == scorer.path.read_bytes()
