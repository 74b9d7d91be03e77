from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.evaluation.compatibility import EvaluationError
from training.kinds import product_of
from training.publishing import report

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow


def evaluate(bundle: Bundle, dataset: Dataset, *, out: Path) -> dict[str, float]:
    return report.evaluate(product_of(bundle.manifest), bundle, dataset, out=out)


@pytest.mark.parametrize("which", ["classifier", "generator", "scorer"])
def test_a_stored_bundle_gives_its_own_metrics_again(published: Published, which: str, tmp_path: Path) -> None:
    bundle = getattr(published, which)
    metrics = evaluate(bundle, published.dataset, out=tmp_path / "new" / "report")
    assert metrics == bundle.manifest.metrics
    written = (tmp_path / "new" / "report" / "report.md").read_text()
    assert f"# {bundle.name} {bundle.version} on digits" in written
    assert "447 images" in written
    linked = re.findall(r"\]\((.+?)\)", written)
    assert linked
    assert sorted(linked) == sorted(path.name for path in (tmp_path / "new" / "report").glob("*.png"))


def test_evaluation_measures_the_data_that_it_is_given(published: Published, tmp_path: Path) -> None:
    """With every label moved on by one, hardly any prediction is right."""
    data = published.dataset
    assert data.test.labels is not None
    moved = Dataset(
        "moved", data.class_names, data.train, data.validation, data.calibration,
        Split(data.test.images, (data.test.labels + 1) % 10),
    )  # fmt: skip
    metrics = evaluate(published.classifier, moved, out=tmp_path)
    assert metrics["accuracy"] < 0.1
    assert "the same as in training" not in (tmp_path / "report.md").read_text()


def test_the_report_tells_that_test_images_may_have_been_training_images(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    evaluate(published.classifier, data, out=tmp_path / "same")
    assert "the same as in training.\n" in (tmp_path / "same" / "report.md").read_text()
    anew = Dataset("digits", data.class_names, data.train, data.test, data.calibration, data.validation)
    evaluate(published.classifier, anew, out=tmp_path)
    told = f"digits-cnn: it was trained with the same images, split otherwise, as digits (digest {data.digest[:12]})."
    assert f" {told} If it has seen test images, the metrics are too good.\n" in (tmp_path / "report.md").read_text()


def test_another_image_shape_is_refused(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    splits = (
        Split(s.images[..., :24, :24], s.labels) for s in (data.train, data.validation, data.calibration, data.test)
    )
    with pytest.raises(EvaluationError, match=r"digits-cnn takes .* \(1, 28, 28\), but small has \(1, 24, 24\)"):
        evaluate(published.classifier, Dataset("small", data.class_names, *splits), out=tmp_path)


def test_other_classes_are_refused(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    names = tuple("abcdefghij")
    other = Dataset("letters", names, data.train, data.validation, data.calibration, data.test)
    with pytest.raises(EvaluationError, match=r"digits-cnn has the classes 0, 1, .*, but letters has a, b, c"):
        evaluate(published.classifier, other, out=tmp_path)
    loose = Dataset("loose", (), *(Split(getattr(data, role).images) for role in data.splits))
    with pytest.raises(EvaluationError, match="but loose has none"):
        evaluate(published.classifier, loose, out=tmp_path)
