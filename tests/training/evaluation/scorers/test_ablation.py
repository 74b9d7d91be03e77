from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.scorers.ablation import ablation, sum_of_squares
from training.metrics.detection import auroc

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.exponential(size=(400, 3))
SETS = {
    "seen_by_the_first": RANDOM.exponential(size=(300, 3)) + np.array([4, 0, 0]),
    "seen_by_the_second": RANDOM.exponential(size=(300, 3)) + np.array([0, 4, 0]),
}
NAMES = ("first", "second", "noise")


def test_a_statistic_is_missed_by_what_it_alone_sees() -> None:
    measured = ablation(NAMES, NORMAL, SETS)
    assert list(measured.alone) == list(measured.without) == list(NAMES)
    for name, other in (("first", "second"), ("second", "first")):
        one = f"seen_by_the_{name}"
        assert measured.alone[name][one] == auroc(NORMAL[:, NAMES.index(name)], SETS[one][:, NAMES.index(name)])
        assert measured.alone[other][one] == pytest.approx(0.5, abs=0.05)
        assert measured.fused[one] > 0.9
        assert measured.without[name][one] == pytest.approx(0.5, abs=0.05)
        assert measured.without["noise"][one] > measured.fused[one]
        assert measured.best(one)[0] == name
        assert measured.best(one)[1] == measured.alone[name][one]


def test_any_fusion_is_taken() -> None:
    measured = ablation(NAMES, NORMAL, SETS, lambda statistics: statistics.max(axis=1))
    one = "seen_by_the_first"
    assert measured.fused[one] == auroc(NORMAL.max(axis=1), SETS[one].max(axis=1))
    assert measured.without["second"][one] == auroc(NORMAL[:, ::2].max(axis=1), SETS[one][:, ::2].max(axis=1))
    assert measured.fused != ablation(NAMES, NORMAL, SETS).fused


def test_squares_are_summed_in_double_precision() -> None:
    assert sum_of_squares(np.array([[3, 4], [1e25, 0]], np.float32)).tolist() == [25, pytest.approx(1e50)]


def test_the_table_names_who_misses_it_most() -> None:
    text = ablation(NAMES, NORMAL, SETS).markdown()
    assert "| first |" in text
    first, noise = (
        next(line for line in text.splitlines() if line.startswith(f"| {name} ")) for name in ("first", "noise")
    )
    assert "seen by the first: -0.4" in first
    assert "+0.0" in noise
