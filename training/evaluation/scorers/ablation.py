"""Ablation of a scorer's statistics: each statistic alone, and the score without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from training.data.arrays import Array
from training.evaluation.tables import table
from training.metrics.detection import auroc

Fusion = Callable[[Array], Array]
Row = Mapping[str, float]  # AUROC by set


class Ablation(NamedTuple):
    """AUROC by statistic and by set of anomalies.

    Args:
        alone: of each statistic alone.
        without: of all other statistics.
        fused: of all statistics.
    """

    alone: Mapping[str, Row]
    without: Mapping[str, Row]
    fused: Row

    def best(self, name: str) -> tuple[str, float]:
        """The statistic with the highest AUROC on set `name`, and that AUROC."""
        return max(((statistic, row[name]) for statistic, row in self.alone.items()), key=lambda pair: pair[1])

    def markdown(self) -> str:
        """One row for each statistic: mean and worst AUROC over the sets, and the set that needs it most."""
        rows = [("all", "", "", *_summary(self.fused), "")]
        for statistic, row in self.without.items():
            gains = {name: self.fused[name] - value for name, value in row.items()}
            most = max(gains, key=lambda name: gains[name])
            missed = f"{most.replace('_', ' ')}: {-gains[most]:+.4f}"
            rows.append((statistic, *_summary(self.alone[statistic]), *_summary(row), missed))
        header = ("statistic", "alone: mean", "worst set", "without it: mean", "worst set", "largest loss without it")
        return table(header, rows)


def sum_of_squares(statistics: Array) -> Array:
    """T [N] of surprises [N,S], in squared nats: one large surprise counts more than several small ones."""
    return np.asarray(np.square(statistics.astype(np.float64)).sum(axis=1))


def ablation(
    names: Sequence[str], normal: Array, anomalous: Mapping[str, Array], fusion: Fusion = sum_of_squares
) -> Ablation:
    """Measure every statistic on every set.

    Args:
        names: of the statistics, S.
        normal: statistics [N,S] of normal images; higher is more unusual.
        anomalous: statistics [M,S] by set.
        fusion: combines statistics [N,S] into one score [N]; a statistic that is left out counts as not unusual.
    """

    def row(score: Fusion) -> Row:
        usual = score(normal)
        return {name: auroc(usual, score(statistics)) for name, statistics in anomalous.items()}

    return Ablation(
        {name: row(lambda s, i=index: s[:, i]) for index, name in enumerate(names)},  # type: ignore[misc]
        {name: row(lambda s, i=index: fusion(silenced(s, i))) for index, name in enumerate(names)},  # type: ignore[misc]
        row(fusion),
    )


def silenced(statistics: Array, column: int) -> Array:
    """`statistics` [N,S] with one statistic set to its least unusual value."""
    return np.where(np.arange(statistics.shape[1]) == column, 0, statistics).astype(statistics.dtype)


def _summary(row: Row) -> tuple[str, str]:
    return f"{np.mean(list(row.values())):.4f}", f"{min(row.values()):.4f}"
