from __future__ import annotations

import numpy as np

from services.inference.bundle import Bundle
from training.evaluation.anomalies.cost import BATCHES, WAYS, cost


def test_every_way_is_timed_and_the_graph_weighed(small_scorer: Bundle) -> None:
    measured = cost(small_scorer, np.zeros((5, 1, 28, 28), np.uint8))
    assert measured.graph_bytes == small_scorer.graph_path("score").stat().st_size
    assert list(measured.microseconds) == list(WAYS)
    assert all(times.keys() == set(BATCHES) and min(times.values()) > 0 for times in measured.microseconds.values())
    text = measured.markdown()
    assert text.count("\n| ") == 1 + len(WAYS)
    assert f"{measured.graph_bytes / 1000:,.0f} KB" in text
