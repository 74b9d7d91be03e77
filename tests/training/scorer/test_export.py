"""The one file is what its parts compute, and its p-values are what the formula says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.scorer.conftest import Made, Seal, made
from training.data import Dataset
from training.data.arrays import Array
from training.evaluation.shifts.sets import simple_anomalies
from training.graphs.inference import predict
from training.graphs.session import ExportError
from training.networks.conditional_vae import ConditionalVAEConfig
from training.scorer import export as module
from training.scorer.components import Parts
from training.scorer.export import ReferenceScorer, export_scorer


def test_signature(scorer: Made) -> None:
    assert [(t.name, t.dtype, t.shape) for t in scorer.graph.inputs] == [("images", "uint8", ("N", 1, 28, 28))]
    assert [(t.name, t.dtype, t.shape) for t in scorer.graph.outputs] == [
        ("score", "float32", ("N",)),
        ("p_value", "float32", ("N",)),
        ("class_p_value", "float32", ("N",)),
        ("residual", "float32", ("N", 28, 28)),
        ("statistics", "float32", ("N", len(scorer.statistics))),
        ("look_alike", "uint8", ("N", 1, 28, 28)),
        ("label", "int64", ("N",)),
    ]
    assert scorer.graph.parity.max_abs_diff <= scorer.graph.parity.bound
    assert len(set(scorer.statistics)) == len(scorer.statistics) == 9
    assert not list(scorer.path.parent.glob("*.data")), "weights must be inside the file"
    content = scorer.path.read_bytes()
    assert b".py" not in content
    assert str(scorer.parts.generator.path).encode() not in content


def test_calibration_images_get_exactly_the_ranks(scorer: Made) -> None:
    """The i-th largest (from 1) of n different calibration scores has p = (1 + i) / (n + 1)."""
    scores, p_values = scorer.calibration["score"], scorer.calibration["p_value"]
    size = len(scores)
    assert len(np.unique(scores)) == size == 90
    np.testing.assert_allclose(np.sort(p_values), (np.arange(1, size + 1) + 1) / (size + 1), rtol=1e-6)
    np.testing.assert_array_equal(scores.argsort(), p_values.argsort()[::-1])


def test_constants(scorer: Made, digits: Dataset) -> None:
    assert scorer.constants["calibration_size"] == 90
    assert scorer.constants["fusion_size"] == 100
    assert scorer.constants["smallest_p_value"] == 1 / 91
    assert scorer.constants["residual_q99"] == 1
    shares = [scorer.constants[f"class_share/{label}"] for label in range(10)]
    assert shares == [(scorer.calibration["label"] == label).mean() for label in range(10)]
    above = (scorer(digits.validation.images)["residual"] > 1).mean()
    assert above == pytest.approx(0.01, abs=0.003), "the map is 1 where 99 % of validation images stay below"


def test_new_images_follow_the_conformal_formulas(scorer: Made, digits: Dataset) -> None:
    images = np.concatenate([digits.test.images, *simple_anomalies(digits.test.images[:20]).values()])
    outputs, calibration = scorer(images), scorer.calibration
    at_least = calibration["score"] >= outputs["score"][:, None]
    np.testing.assert_allclose(outputs["p_value"], (1 + at_least.sum(axis=1)) / 91, rtol=1e-6)
    same = calibration["label"] == outputs["label"][:, None]
    assert len(np.unique(outputs["label"])) > 5
    expected = (1 + (at_least & same).sum(axis=1)) / (same.sum(axis=1) + 1)
    np.testing.assert_allclose(outputs["class_p_value"], expected, rtol=1e-6)
    assert outputs["p_value"].min() == np.float32(scorer.constants["smallest_p_value"]), "noise is like nothing known"


def test_the_label_is_the_classifiers(scorer: Made, digits: Dataset) -> None:
    assert scorer.parts.classifier is not None
    logits = predict(scorer.parts.classifier, digits.test.images)["logits"]
    assert scorer(digits.test.images)["label"].tolist() == logits.argmax(axis=1).tolist()


def test_the_look_alike_is_a_training_image(scorer: Made, digits: Dataset) -> None:
    known = {image.tobytes() for image in digits.train.images}
    found = scorer(digits.test.images)["look_alike"]
    assert {image.tobytes() for image in found} <= known
    assert len(np.unique(found, axis=0)) > 10
    rows = np.linspace(0, len(digits.train) - 1, 40).astype(int)  # the coreset: each is most like itself
    assert np.array_equal(scorer(digits.train.images[rows])["look_alike"], digits.train.images[rows])


EXTREME = {
    "black": np.zeros((1, 28, 28), np.uint8),
    "white": np.full((1, 28, 28), 255, np.uint8),
    "grey": np.full((1, 28, 28), 127, np.uint8),
    "one bright pixel": np.pad(np.full((1, 1, 1), 255, np.uint8), ((0, 0), (13, 14), (5, 22))),
    "chequered": np.where(np.indices((1, 28, 28)).sum(axis=0) % 2, 255, 0).astype(np.uint8),
    "stripes": np.where(np.indices((1, 28, 28))[2] % 2, 255, 0).astype(np.uint8),
}


@pytest.mark.parametrize("name", EXTREME)
def test_every_image_has_a_finite_answer(scorer: Made, name: str) -> None:
    outputs = scorer(EXTREME[name][None])
    assert all(np.isfinite(array).all() for array in outputs.values())
    for output in ("p_value", "class_p_value"):
        assert 0 < outputs[output][0] <= 1
    assert (outputs["residual"] >= 0).all()
    assert (outputs["statistics"] >= 0).all()


def test_an_answer_does_not_depend_on_the_batch(scorer: Made) -> None:
    images = np.stack(list(EXTREME.values()))
    together, alone = scorer(images), [scorer(image[None]) for image in images]
    for name, array in together.items():
        expected = np.concatenate([outputs[name] for outputs in alone])
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_one_calibration_image_is_enough(parts: Parts, digits: Dataset, tmp_path: Path) -> None:
    one = made(parts, replace(digits, calibration=digits.calibration.take(np.arange(1))), tmp_path)
    assert one.constants["calibration_size"] == 1
    assert one.constants["smallest_p_value"] == 0.5
    assert one.calibration["p_value"].tolist() == [1]
    assert set(one(digits.test.images)["p_value"].tolist()) == {0.5, 1.0}
    classes = one(digits.test.images)
    other = classes["label"] != one.calibration["label"][0]
    assert other.any()
    assert (classes["class_p_value"][other] == 1).all(), "a class that was never seen has nothing to be compared with"


@pytest.mark.parametrize("role", ["validation", "calibration"])
def test_an_empty_split_is_named(parts: Parts, digits: Dataset, role: str, tmp_path: Path) -> None:
    empty = replace(digits, **{role: getattr(digits, role).take(np.arange(0))})
    with pytest.raises(ExportError, match=f"score: the {role} split of numerals is empty; give it at least one image"):
        export_scorer(parts, empty, tmp_path)


def test_a_graph_that_is_not_its_parts_is_refused(
    parts: Parts, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison runs each part by itself: one that answers otherwise there is found out."""

    class Brighter(ReferenceScorer):
        def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            score, *others = super().__call__(images)
            return (score + 5, *others)

    monkeypatch.setattr(module, "ReferenceScorer", Brighter)
    with pytest.raises(ExportError, match=r"score\.onnx: score at batch 1 differs from PyTorch by"):
        export_scorer(parts, digits, tmp_path)


def test_the_graph_is_its_parts_run_apart(scorer: Made, digits: Dataset) -> None:
    """On images that the export did not compare, anomalies among them."""
    strange = simple_anomalies(digits.test.images[:8]).values()
    compare(scorer, ReferenceScorer(scorer.scorer), np.concatenate([digits.train.images[:40], *strange]))


def compare(whole: Made, apart: ReferenceScorer, images: Array) -> None:
    outputs = whole(images)
    with torch.no_grad():
        expected = dict(zip(apart.outputs, (tensor.numpy() for tensor in apart(torch.from_numpy(images))), strict=True))
    assert expected.keys() == outputs.keys()
    expected |= apart.recompute_steps(outputs)
    for name in ("label", "look_alike"):
        if name in outputs:
            assert np.array_equal(outputs[name], expected[name]), name
    for name in ("score", "statistics", "residual", "p_value"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_a_conditional_vae_draws_as_the_class_that_is_seen(
    parts: Parts, digits: Dataset, sealed: Seal, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    vae = ConditionalVAEConfig(latent_size=4, likelihood="bernoulli").build(digits.image_shape, 10).eval()
    conditional = replace(parts, generator=sealed("cvae", vae, digits))
    assert conditional.conditional
    whole = made(conditional, digits, tmp_path)
    assert whole.graph.parity.max_abs_diff <= whole.graph.parity.bound
    assert [tensor.name for tensor in whole.graph.inputs] == ["images"]
    with pytest.raises(ExportError, match="digits-cvae draws by class and needs a classifier"):
        export_scorer(replace(conditional, classifier=None), digits, tmp_path)
