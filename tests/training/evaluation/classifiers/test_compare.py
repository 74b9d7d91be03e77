from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped]

from services.inference.bundle import Bundle
from training.evaluation.classifiers.compare import Comparison, Side, compare
from training.evaluation.classifiers.robustness import Measured
from training.evaluation.compatibility import EvaluationError
from training.graphs.speed import microseconds
from training.metrics.classification import mcnemar

if TYPE_CHECKING:
    from conftest import Published


@given(first=st.integers(0, 300), second=st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-6)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_many_images_is_finite() -> None:
    assert mcnemar(5000, 5000) == 1
    assert 0 <= mcnemar(0, 5000) < 1e-300


def compared(only_first: int, only_second: int) -> Comparison:
    first, second = (Side(name, Measured(0.9, 0.1, 0.01), 1234, {1: 50.0, 64: 20.0}) for name in ("old", "new"))
    p_value = mcnemar(only_first, only_second)
    return Comparison(first, second, 1000, 0.97, only_first, only_second, p_value)


def test_the_verdict_says_what_the_counts_mean() -> None:
    assert compared(0, 0).verdict.startswith("Both are right and wrong on the same images")
    assert compared(9, 12).verdict.startswith("No significant difference (9 images right by old alone, 12 by new")
    assert compared(2, 30).verdict.startswith("new is significantly more accurate")
    assert compared(30, 2).verdict.startswith("old is significantly more accurate")
    text = compared(2, 30).markdown()
    assert "| measure | old | new |" in text
    assert "| right alone, images | 2 | 30 |" in text
    assert "97.00%" in text


@pytest.mark.slow
def test_a_bundle_against_itself_and_against_a_blinder_one(published: Published, tmp_path: Path) -> None:
    bundle, data = published.classifier, published.dataset
    same = compare(bundle, bundle, data)
    assert (same.only_first, same.only_second, same.agreement, same.p_value) == (0, 0, 1.0, 1.0)
    assert same.first.measured.accuracy == bundle.manifest.metrics["accuracy"]
    assert same.first.graph_bytes == bundle.graph_path("classify").stat().st_size
    assert same.first.name == f"{bundle.name}:{bundle.version}"
    assert same.first.microseconds.keys() == {1, 64}

    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"name": "other"}))
    assert [compare(bundle, other, data).first.name, compare(bundle, other, data).second.name] == [
        "digits-cnn",
        "other",
    ]


@pytest.mark.slow
def test_what_cannot_be_compared_is_named(published: Published) -> None:
    bundle, data = published.classifier, published.dataset
    with pytest.raises(EvaluationError, match="digits-scorer is a bundle for anomaly; give two classifiers"):
        compare(bundle, published.scorer, data)
    manifest = bundle.manifest
    elsewhere = manifest.dataset.model_copy(update={"name": "letters", "digest": "f" * 64})
    stranger = Bundle(bundle.path, manifest.model_copy(update={"dataset": elsewhere}))
    with pytest.raises(EvaluationError, match=r"digits-cnn was trained with digits .* with letters \(ffffffffffff\)"):
        compare(bundle, stranger, data)
    renamed = Bundle(bundle.path, manifest.model_copy(update={"class_names": tuple("abcdefghij")}))
    with pytest.raises(EvaluationError, match="has the classes a, b, c"):
        compare(bundle, renamed, data)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 64])
def test_speed_of_each_graph_is_positive_and_finite(published: Published, batch: int) -> None:
    path = published.classifier.graph_path("classify")
    times = microseconds([path, path], published.dataset.test.images[:5], batch)
    assert len(times) == 2
    assert all(0 < value < np.inf for value in times)
