from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from training.evaluation.classifiers.attacks import EPSILONS
from training.evaluation.classifiers.robustness import Measured, markdown, measure, under_attacks, under_corruptions
from training.evaluation.shifts.corruptions import CORRUPTIONS, SEVERITIES

if TYPE_CHECKING:
    from conftest import Published


@pytest.mark.slow
def test_corruptions_and_attacks_begin_at_the_clean_figures_and_end_below_them(published: Published) -> None:
    images, labels = published.dataset.test.images[:60], published.dataset.test.labels[:60]
    clean = measure(published.classifier, images, labels)
    corrupted = under_corruptions(published.classifier, images, labels)
    assert list(corrupted) == list(CORRUPTIONS)
    assert all(len(row) == 1 + len(SEVERITIES) and row[0] == clean for row in corrupted.values())
    assert all(row[-1].nll > clean.nll for row in corrupted.values())
    attacked = under_attacks(published.classifier, images[:20], labels[:20])
    assert all(len(row) == 1 + len(EPSILONS) and row[-1].accuracy < 0.2 for row in attacked.values())


def test_markdown_has_a_table_a_measure() -> None:
    rows = {"blur": [Measured(1.0, 0.01234, 0.005), Measured(0.955, 1.5, 0.1)]}
    text = markdown(rows, "severity", [3])
    assert "| severity | 0 | 3 |" in text
    assert "| blur | 100.00 | 95.50 |" in text
    assert "| blur | 0.0123 | 1.5 |" in text
    assert "| blur | 0.50 | 10.00 |" in text
