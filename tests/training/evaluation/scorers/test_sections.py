from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle, Manifest
from training.data import Dataset
from training.evaluation.scorers import sections as module
from training.evaluation.scorers.sections import scorer_chapters
from training.evaluation.shifts.sets import anomaly_sets
from training.graphs.inference import score
from training.metrics.detection import detection_rate, separation

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("COUNT", 20), ("FULL_COUNT", 40), ("NORMALS", 100)):
        monkeypatch.setattr(module, name, count)


class Explained(Manifest):
    """A manifest that names its statistics, as a scorer's of several networks does."""

    statistics: tuple[str, ...] = ("brightness", "roughness")


def explained(bundle: Bundle) -> Bundle:
    return Bundle(bundle.path, Explained(**bundle.manifest.model_dump()))


def pictures(text: str) -> list[str]:
    return re.findall(r"\]\((.+?)\)", text)


def test_the_short_report_of_a_scorer_without_names(small_scorer: Bundle, digits: Dataset, tmp_path: Path) -> None:
    anomalies, valid, defects, more = scorer_chapters(small_scorer, digits, tmp_path, full=False)
    assert anomalies.startswith("## Anomalies\n\nEach set is compared with 100 normal test images")
    assert "best single statistic" not in anomalies
    assert "| inverted | 20 | 1.0000 [1.0000, 1.0000] | 100.0% |" in anomalies
    assert "is left out" not in anomalies
    assert valid.startswith(
        f"## Validity of the p-value\n\n100 normal test images, by p-values from {len(digits.calibration)}"
    )
    assert re.search(r"\| blot \| 20 \| \d+\.\d \| [01]\.\d{4} \| [01]\.\d{4} \|", defects)
    assert "--full" in more
    assert sorted(pictures(anomalies)) == sorted(path.name for path in tmp_path.iterdir())


def test_full_takes_every_image_and_says_what_statistics_are_worth(
    small_scorer: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    other = replace(digits, name="brighter", test=replace(digits.test, images=digits.test.images // 2 + 100))
    bundle = explained(small_scorer)
    written = scorer_chapters(bundle, digits, tmp_path, full=True, other=other)
    titles = [text.splitlines()[0] for text in written]
    assert titles == [
        "## Anomalies",
        "## Validity of the p-value",
        "## Localisation of defects",
        "## Ablation of the statistics",
        "## Cost",
    ]
    assert "Each set is compared with 447 normal test images" in written[0]
    assert "separates brighter from digits with an AUROC of 1.0000" in written[0]
    normal, made = score(bundle, digits.test.images), anomaly_sets(digits, digits.test.images, other, 40)
    for name, images in made.items():
        outputs = score(bundle, images)
        area, low, high = separation(normal["score"], outputs["score"])
        share = detection_rate(outputs["p_value"])
        start = f"| {name.replace('_', ' ')} | 40 | {area:.4f} [{low:.4f}, {high:.4f}] | {share:.1%} | "
        assert start in written[0]
    assert "| brightened | 40 | 1.0000 [1.0000, 1.0000] | 100.0% | brightness: 1.0000 |" in written[0]
    assert "| roughness |" in written[3]
    assert sorted(pictures("".join(written))) == sorted(path.name for path in tmp_path.iterdir())


def test_the_fusion_is_the_callers(small_scorer: Bundle, digits: Dataset, tmp_path: Path) -> None:
    """A score that is low where the statistics are high puts most anomalies below normal images."""
    text = scorer_chapters(
        explained(small_scorer), digits, tmp_path, full=True, fusion=lambda statistics: -statistics.sum(axis=1)
    )[3]
    fused = next(line for line in text.splitlines() if line.startswith("| all |"))
    assert float(fused.split("|")[4]) < 0.5


def test_the_other_data_are_missed_where_they_are_not_at_hand(
    small_scorer: Bundle, digits: Dataset, tmp_path: Path
) -> None:
    anomalies = scorer_chapters(small_scorer, replace(digits, name="mnist"), tmp_path, full=False)[0]
    assert "fashion-mnist is left out, because its files were not found; give their folder by `--data-dir`" in anomalies
    assert "digits padded" in anomalies


def test_what_cannot_be_cut_has_no_row(small_scorer: Bundle, digits: Dataset, tmp_path: Path) -> None:
    blank = replace(digits, test=replace(digits.test, images=np.zeros_like(digits.test.images)))
    defects = scorer_chapters(small_scorer, blank, tmp_path, full=False)[2]
    assert "| blot |" in defects
    assert "| cut |" not in defects
