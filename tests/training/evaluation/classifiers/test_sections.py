from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation.classifiers import sections as module
from training.evaluation.classifiers.sections import chapters
from training.graphs.inference import predict

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("CORRUPTED", 30), ("ATTACKED", 6), ("EXPLAINED", 4)):
        monkeypatch.setattr(module, name, count)


def pictures(text: str) -> list[str]:
    return re.findall(r"\]\((.+?)\)", text)


@pytest.mark.usefixtures("few")
def test_by_default_mistakes_and_corruptions_and_what_more_there_is(published: Published, tmp_path: Path) -> None:
    mistakes, corruptions, more = chapters(published.classifier, published.dataset, tmp_path, full=False)
    wrong = round((1 - published.classifier.manifest.metrics["accuracy"]) * 447)
    assert f"{wrong} of 447 test images are misclassified" in mistakes
    assert corruptions.startswith("## Robustness to corruptions\n\n30 test images")
    assert "--full" in more
    assert sorted(pictures(mistakes + corruptions)) == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.usefixtures("few")
def test_full_adds_attacks_and_explanations(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    quick = data.test.take(np.arange(40))
    small = Dataset(data.name, data.class_names, data.train, data.validation, data.calibration, quick)
    _, corruptions, attacks, explained = chapters(published.classifier, small, tmp_path, full=True)
    assert "40 test images" in corruptions
    assert attacks.startswith("## Robustness to attacks\n\n6 test images")
    assert "| pgd |" in attacks
    assert explained.startswith("## Checks of the explanations\n\n4 test images")
    assert "| RISE |" in explained
    assert {"attacks.png", "explanations.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("few")
def test_a_classifier_without_gradient_is_not_attacked_and_says_so(published: Published, tmp_path: Path) -> None:
    model = onnx.load(published.classifier.graph_path("classify"))
    first = model.graph.node[0]
    first.output[0], pixels = "exact", first.output[0]
    model.graph.node.insert(1, helper.make_node("Floor", ["exact"], [pixels]))
    onnx.save(model, tmp_path / "classify.onnx")
    bundle = Bundle(tmp_path, published.classifier.manifest)
    text = module._attacks(bundle, published.dataset.test.take(np.arange(4)), tmp_path)
    assert "Not measured: classify.onnx: the gradient of operator Floor is not implemented" in text


def test_a_faultless_classifier_has_no_worst_mistakes(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    predicted = predict(published.classifier, data.test.images)["probabilities"].argmax(axis=1)
    right = data.test.take(np.flatnonzero(predicted == data.test.labels))
    faultless = Dataset(data.name, data.class_names, data.train, data.validation, data.calibration, right)
    assert "None: every test image" in module._mistakes(published.classifier, faultless, tmp_path)
    assert not list(tmp_path.iterdir())
