"""Counters as the metrics page shows them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from services.telemetry.counter import Counter


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter("tested_things_total", "Things.", ["kind"])
    yield made
    REGISTRY.unregister(made)


def test_counts_are_shown_by_their_labels(counter: Counter) -> None:
    counter.labels("a").inc()
    counter.labels("a").inc(2)
    counter.labels("b")
    assert REGISTRY.get_sample_value("tested_things_total", {"kind": "a"}) == 3
    assert REGISTRY.get_sample_value("tested_things_total", {"kind": "b"}) == 0
    assert REGISTRY.get_sample_value("tested_things_total", {"kind": "c"}) is None


def test_the_number_of_labels_is_checked(counter: Counter) -> None:
    with pytest.raises(ValueError, match="has labels kind"):
        counter.labels("a", "b")


def test_a_family_without_labels_begins_at_zero() -> None:
    made = Counter("tested_others_total", "Others.")
    try:
        assert REGISTRY.get_sample_value("tested_others_total") == 0
        made.inc()
        assert REGISTRY.get_sample_value("tested_others_total") == 1
    finally:
        REGISTRY.unregister(made)
