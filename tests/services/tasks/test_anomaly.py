"""Each policy judges as it says, by the p-values of all images or of the class's, and says what it cannot see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.errors import InvalidInput
from services.inference.conformal import band, pac_rank
from services.inference.scorer import Scorer
from services.tasks.anomaly import AnomalyPolicy, Policy, Verdicts
from tests.services.scorers import PLAIN, scorer_bundle, shade


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    """400 calibration images with scores 0.5, 1, ... 200, classes of 200, 120 and 80 with the same range."""
    return Scorer(scorer_bundle(tmp_path / "scorer"))


def judged(
    scorer: Scorer, images: np.ndarray, policy: Policy, alpha: float, *, per_class: bool = False
) -> tuple[dict[str, np.ndarray], Verdicts]:
    judge = AnomalyPolicy(alpha, policy, per_class)
    judge.check(scorer, len(images))
    outputs = scorer.run("score", {"images": images})
    return outputs, judge.verdicts(scorer, outputs)


EVERY_LEVEL = shade(*range(0, 250, 2))


@pytest.mark.parametrize("alpha", [0.004, 0.05, 0.3])
def test_by_p_value(scorer: Scorer, alpha: float) -> None:
    outputs, verdicts = judged(scorer, EVERY_LEVEL, "p-value", alpha)
    assert verdicts.anomalous.tolist() == (outputs["p_value"] <= np.float32(alpha)).tolist()
    assert verdicts.anomalous.any()
    assert (verdicts.threshold, verdicts.size, verdicts.smallest) == (alpha, 400, 1 / 401)
    assert verdicts.band == band(int(alpha * 401), 400)
    assert verdicts.warning is None


def test_a_p_value_that_is_the_threshold_itself_is_anomalous(scorer: Scorer) -> None:
    outputs = {"p_value": np.array([20, 21], np.float32) / np.float32(401), "score": np.zeros(2, np.float32)}
    assert AnomalyPolicy(20 / 401, "p-value", False).verdicts(scorer, outputs).anomalous.tolist() == [True, False]


def test_pac_has_a_lower_threshold_that_keeps_its_promise(scorer: Scorer) -> None:
    outputs, verdicts = judged(scorer, EVERY_LEVEL, "pac", 0.05)
    k = pac_rank(0.05, 400)
    assert verdicts.threshold == k / 401 < 0.05
    assert verdicts.anomalous.tolist() == (np.rint(outputs["p_value"] * 401) <= k).tolist()
    assert verdicts.band is not None
    assert verdicts.band[0] < 0.05 < verdicts.band[1] < 0.06


def test_pac_by_class_has_a_threshold_for_each(scorer: Scorer) -> None:
    images = np.concatenate([shade(*range(0, 250, 2), label=label) for label in (0, 1, 2)])
    outputs, verdicts = judged(scorer, images, "pac", 0.05, per_class=True)
    limits = np.array([pac_rank(0.05, size) / (size + 1) for size in (200, 120, 80)])[outputs["label"]]
    assert verdicts.anomalous.tolist() == (outputs["class_p_value"] <= limits + 1e-6).tolist()
    assert (verdicts.threshold, verdicts.size, verdicts.smallest) == (None, 80, 1 / 81)


def test_by_class_only_the_images_of_that_class_are_compared_with(scorer: Scorer) -> None:
    outputs, verdicts = judged(scorer, shade(197, 150, label=2), "p-value", 0.02, per_class=True)
    assert verdicts.anomalous.tolist() == (outputs["class_p_value"] <= np.float32(0.02)).tolist()
    assert outputs["class_p_value"][0] == pytest.approx(3 / 81)
    assert outputs["p_value"][0] == pytest.approx(7 / 401)
    assert not verdicts.anomalous[0]
    assert judged(scorer, shade(197, 150, label=2), "p-value", 0.02)[1].anomalous[0]


def test_false_discoveries_are_bounded_over_the_images_of_a_request(scorer: Scorer) -> None:
    alone = judged(scorer, shade(192), "fdr", 0.05)[1]
    among_others = judged(scorer, shade(192, *[50] * 9), "fdr", 0.05)[1]
    assert alone.anomalous.tolist() == [True]
    assert not among_others.anomalous.any()
    assert (alone.threshold, among_others.threshold) == (0.05, 0)
    assert alone.band is None


def test_a_share_of_the_request_is_the_most_unusual(scorer: Scorer) -> None:
    _, verdicts = judged(scorer, shade(*range(30)), "top-fraction", 0.1)
    assert np.flatnonzero(verdicts.anomalous).tolist() == [27, 28, 29]
    assert (verdicts.threshold, verdicts.band, verdicts.warning) == (None, None, None)


@pytest.mark.parametrize(
    ("policy", "alpha", "count", "warning"),
    [
        (
            "p-value",
            0.001,
            1,
            "no image can be anomalous at alpha 0.001: the smallest p-value of 56 calibration images is 0.0175",
        ),
        (
            "pac",
            0.02,
            1,
            "no image can be anomalous at alpha 0.02: 95 % confidence needs 149 calibration images, "
            "and there are 56 calibration images",
        ),
        (
            "fdr",
            0.05,
            10,
            "at alpha 0.05, either none or at least 4 of 10 images are anomalous: the smallest p-value of 56 "
            "calibration images is 0.0175",
        ),
        ("fdr", 0.2, 2, "p-values are multiples of 0.0175: there are only 56 calibration images"),
        ("p-value", 0.05, 1, "p-values are multiples of 0.0175: there are only 56 calibration images"),
        ("top-fraction", 0.001, 2, None),
    ],
)
def test_few_calibration_images_are_warned_of(
    tmp_path: Path, policy: Policy, alpha: float, count: int, warning: str | None
) -> None:
    scorer = Scorer(scorer_bundle(tmp_path / "few", size=56))
    images = shade(*[254] * count)
    outputs, verdicts = judged(scorer, images, policy, alpha)
    assert verdicts.warning == warning
    assert (outputs["p_value"] == np.float32(1 / 57)).all()
    if warning and warning.startswith("no image"):
        assert not verdicts.anomalous.any()
        assert verdicts.band == (0, 0)
    elif policy == "fdr" and warning and warning.startswith("fewer"):
        assert judged(scorer, images[:4], policy, alpha)[1].anomalous.all()
        three = np.concatenate([images[:3], shade(*[9] * 7)])
        assert not judged(scorer, three, policy, alpha)[1].anomalous.any()


def test_a_small_class_is_warned_of(scorer: Scorer) -> None:
    warning = judged(scorer, shade(9, label=2), "p-value", 0.05, per_class=True)[1].warning
    assert warning == "p-values are multiples of 0.0123: there are only 80 calibration images of one class"
    assert judged(scorer, shade(9, label=1), "p-value", 0.05, per_class=True)[1].warning is None


@pytest.mark.parametrize(
    ("outputs", "policy", "per_class", "count", "field"),
    [
        (PLAIN, "p-value", True, 2, "per_class"),
        (None, "top-fraction", True, 2, "per_class"),
        (None, "top-fraction", False, 1, "policy"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_field(
    tmp_path: Path, outputs: tuple[str, ...] | None, policy: Policy, per_class: bool, count: int, field: str
) -> None:
    made = scorer_bundle(tmp_path / "it", outputs=outputs) if outputs else scorer_bundle(tmp_path / "it")
    with pytest.raises(InvalidInput, match=f"^parameters.{field}: ") as refused:
        AnomalyPolicy(0.05, policy, per_class, "parameters.").check(Scorer(made), count)
    assert refused.value.field == f"parameters.{field}"
