from __future__ import annotations

import numpy as np

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation.scorers.cost import BATCHES, SCORED, WAYS, cost, only
from training.graphs.inference import score
from training.graphs.session import open_graph, run


def test_every_way_is_timed_and_the_graph_weighed(small_scorer: Bundle) -> None:
    measured = cost(small_scorer, np.zeros((5, 1, 28, 28), np.uint8))
    assert measured.graph_bytes == small_scorer.graph_path("score").stat().st_size
    assert list(measured.microseconds) == list(WAYS)
    assert all(times.keys() == set(BATCHES) and min(times.values()) > 0 for times in measured.microseconds.values())
    text = measured.markdown()
    assert text.count("\n| ") == 1 + len(WAYS)
    assert f"{measured.graph_bytes / 1000:,.0f} KB" in text


def test_a_graph_of_some_outputs_gives_the_same_of_those(small_scorer: Bundle, digits: Dataset) -> None:
    images = digits.test.images[:20]
    bare = open_graph(only(small_scorer.graph_path("score"), SCORED))
    assert tuple(output.name for output in bare.get_outputs()) == SCORED
    whole = score(small_scorer, images)
    for name, values in run(bare, {"images": images}).items():
        assert np.array_equal(values, whole[name])
