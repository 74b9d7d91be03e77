"""scikit-learn's classifiers in bundles: their own predictions, out of the service's data plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from services.call import Call
from services.dataplane import DataPlane
from services.inference import registry
from services.inference.classifier import Classifier
from training.data import Dataset, Split, load
from training.export.classifier import export_classifier
from training.export.wrappers import Classify
from training.kinds import KINDS
from training.loops.estimators import LogisticRecipe, SVMRecipe, fit_logistic, fit_svm, rows
from training.networks.estimator import Scores
from training.publishing.publish import publish

FITS = {
    "logistic": lambda dataset: fit_logistic(dataset, LogisticRecipe()),
    "svm": lambda dataset: fit_svm(dataset, SVMRecipe()),
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def only(dataset: Dataset, classes: int) -> Dataset:
    """The first so many classes."""
    splits = (getattr(dataset, role) for role in dataset.splits)
    kept = (split.take(np.flatnonzero(split.labels < classes)) for split in splits)
    return Dataset(dataset.name, dataset.class_names[:classes], *kept)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "least"), [("logistic", 0.96), ("svm", 0.985)])
async def test_the_service_answers_as_scikit_learn_does(
    network: str, least: float, digits: Dataset, tmp_path: Path, empty_store: Path
) -> None:
    scores = FITS[network](digits)
    [bundle] = publish(KINDS[network], scores, digits, recipe="baselines", seed=0, run_dir=tmp_path / "run")
    assert bundle.name == f"digits-{network}"
    assert bundle.manifest.graphs["classify"].parity.top1_agreement == 1
    assert {"scikit-learn", "skl2onnx"} < bundle.manifest.versions.keys()
    assert "## Parity with scikit-learn" in (bundle.path / "card.md").read_text()
    registry.store(bundle)
    plane = DataPlane(["classification"])
    await plane.start()
    try:
        model = plane.select(Classifier, "classify", None)
        outputs = await model.infer("classify", {"images": digits.test.images}, Call())
    finally:
        await plane.stop()
    expected = scores.estimator.predict(rows(digits.test)[0])
    assert np.array_equal(outputs["probabilities"].argmax(axis=1), expected)
    assert (expected == digits.test.labels).mean() > least


@pytest.mark.parametrize("network", FITS)
@pytest.mark.parametrize("classes", [2, 3])
def test_any_number_of_classes(network: str, classes: int, digits: Dataset, tmp_path: Path) -> None:
    few = only(digits, classes)
    scores = FITS[network](few)
    exported = export_classifier(scores, few, tmp_path)
    graphs, constants = exported.graphs, exported.constants
    session = onnxruntime.InferenceSession(tmp_path / "classify.onnx")
    names = [tensor.name for tensor in graphs["classify"].outputs]
    assert names == ["logits", "probabilities", "prediction_set"]
    assert [tensor.shape for tensor in graphs["classify"].outputs] == [("N", classes)] * 3
    assert [(tensor.dtype, tensor.shape) for tensor in graphs["classify"].inputs] == [("uint8", ("N", 1, 28, 28))]
    logits, probabilities, sets = session.run(names, {"images": few.test.images})
    decision = scores.estimator.decision_function(rows(few.test)[0])
    expected = decision if classes > 2 else np.stack([-decision, decision], axis=1)
    assert logits == pytest.approx(expected / constants["temperature"], abs=1e-4)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(probabilities)), abs=1e-5)
    assert np.array_equal(sets, probabilities >= np.float32(constants["set_threshold"]))
    assert np.array_equal(probabilities.argmax(axis=1), scores.estimator.predict(rows(few.test)[0]))


def test_colour_images(tmp_path: Path, digits: Dataset) -> None:
    splits = (getattr(only(digits, 3), role) for role in digits.splits)
    colour = (
        Split(
            np.concatenate([s.images[..., 2:20], s.images[..., 4:22] // 2, s.images[..., 6:24] // 3], axis=1), s.labels
        )
        for s in splits
    )
    dataset = Dataset("colour", ("a", "b", "c"), *colour)
    graphs = export_classifier(fit_svm(dataset, SVMRecipe()), dataset, tmp_path).graphs
    assert graphs["classify"].inputs[0].shape == ("N", 3, 28, 18)
    assert graphs["classify"].parity.top1_agreement == 1


def test_scores_are_the_decision_function(digits: Dataset) -> None:
    scores = fit_logistic(only(digits, 3), LogisticRecipe())
    images = torch.from_numpy(digits.test.images[:5])
    expected = scores.estimator.decision_function(rows(digits.test.take(np.arange(5)))[0])
    assert Classify(scores)(images)[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_unlabelled_data_are_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="labels: the data have no labels"):
        rows(Split(digits.test.images))


def test_the_fit_is_the_same_each_time(digits: Dataset) -> None:
    few = only(digits, 3)
    for fit in FITS.values():
        first, second = (fit(few) for _ in range(2))
        assert isinstance(first, Scores)
        images = rows(few.test)[0]
        assert np.array_equal(first.estimator.decision_function(images), second.estimator.decision_function(images))
