"""Histograms as the metrics page shows them, and the exemplars in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.telemetry import metrics
from services.telemetry.histogram import Histogram

OPENMETRICS = b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"


@pytest.fixture
def histogram() -> Iterator[Histogram]:
    made = Histogram("tested_duration_seconds", "Times.", ["kind"], buckets=(0.1, 1))
    yield made
    REGISTRY.unregister(made)


def exemplars(text: str) -> dict[str, tuple[str, float]]:
    """The request and the value of the exemplar of each bucket, by its bound."""
    return {
        sample.labels["le"]: (sample.exemplar.labels["request_id"], sample.exemplar.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tested_duration_seconds_bucket" and sample.exemplar
    }


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket(histogram: Histogram) -> None:
    for value in (0.05, 0.1, 0.5, 3.0):
        histogram.labels("a").observe(value)
    shown = [
        REGISTRY.get_sample_value("tested_duration_seconds_bucket", {"kind": "a", "le": bound})
        for bound in ("0.1", "1.0", "+Inf")
    ]
    assert shown == [2, 3, 4]
    assert REGISTRY.get_sample_value("tested_duration_seconds_sum", {"kind": "a"}) == pytest.approx(3.65)


def test_a_bucket_shows_its_last_request_to_who_asks_for_openmetrics(histogram: Histogram) -> None:
    for value, request in ((0.05, b"first"), (0.06, b"second"), (5.0, b"slow")):
        histogram.labels("a").observe_request(value, request)
    text, content_type = metrics.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert exemplars(text.decode()) == {"0.1": ("second", 0.06), "+Inf": ("slow", 5.0)}


def test_a_bucket_shows_the_last_request_that_was_traced_first(histogram: Histogram) -> None:
    histogram.labels("a").observe_traced(0.05, b"r" * 64, "4bf92f3577b34da6a3ce929d0e0e4736")
    histogram.labels("a").observe_request(0.06, b"later")
    text = metrics.exposition(OPENMETRICS)[0].decode()
    assert exemplars(text) == {"0.1": ("r" * 64, 0.05)}
    [line] = [line for line in text.splitlines() if "4bf92f3577b34da6a3ce929d0e0e4736" in line]
    labels = line.partition(" # {")[2].partition("}")[0]
    pairs = [pair.split("=") for pair in labels.split(",")]
    assert sum(len(name) + len(value.strip('"')) for name, value in pairs) <= 128, "OpenMetrics allows no more"
    assert 'tested_duration_seconds_count{kind="a"} 2.0' in text


@pytest.mark.parametrize("accept", [b"", b"*/*", b"text/plain", b"application/json;version=a"])
def test_others_get_the_text_format_without_exemplars(histogram: Histogram, accept: bytes) -> None:
    histogram.labels("a").observe_request(0.05, b"first")
    text, content_type = metrics.exposition(accept)
    assert content_type.startswith("text/plain")
    assert b"first" not in text
    assert b'tested_duration_seconds_bucket{kind="a",le="0.1"} 1.0' in text


def test_without_a_request_a_bucket_has_no_exemplar(histogram: Histogram) -> None:
    histogram.labels("a").observe(0.05)
    assert exemplars(metrics.exposition(OPENMETRICS)[0].decode()) == {}
