"""The page of metrics says what prometheus_client's own page says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Summary, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from services.telemetry import metrics
from services.telemetry.page import page

Parse = Callable[[str], Iterable[Metric]]


def read(text: bytes, parse: Parse) -> list[tuple[object, ...]]:
    """Everything on a page."""
    return [
        (family.name, family.type, family.documentation, sample.name, sorted(sample.labels.items()), sample.value)
        + ((sample.exemplar.labels, sample.exemplar.value) if sample.exemplar else ())
        for family in parse(text.decode())
        for sample in family.samples
    ]


@pytest.fixture
def hostile() -> CollectorRegistry:
    """Values and labels that need care."""
    registry = CollectorRegistry()
    gauge = Gauge("hostile", 'Help with "quotes",\na line and a \\.', ["label"], registry=registry)
    values = {'"': 1e300, "\\n": -0.0, "\n": math.inf, "é{}": -math.inf, "": 1e-7, "a=b,c": 12345678.9}
    for label, value in values.items():
        gauge.labels(label).set(value)
    return registry


def test_the_text_is_the_same(hostile: CollectorRegistry) -> None:
    metrics.REQUEST_SECONDS.labels("/tested", "200").observe_request(0.3, b"one")
    metrics.REJECTIONS.labels("/tested", "queue-full").inc()
    # What the process has used meanwhile differs.
    families = [family for family in REGISTRY.collect() if not family.name.startswith(("process_", "python_gc"))]

    class Kept:
        def collect(self) -> Iterable[Metric]:
            return families

    assert read(page(families, openmetrics=False), parse_text) == read(generate_latest(Kept()), parse_text)
    expected = read(openmetrics.generate_latest(Kept()), parse_openmetrics)
    assert read(page(families, openmetrics=True), parse_openmetrics) == expected
    assert any("request_id" in str(line) for line in expected)
    assert read(page(hostile.collect(), openmetrics=False), parse_text) == read(generate_latest(hostile), parse_text)
    expected = read(openmetrics.generate_latest(hostile), parse_openmetrics)
    assert read(page(hostile.collect(), openmetrics=True), parse_openmetrics) == expected


def test_no_number_is_written_as_prometheus_reads_it() -> None:
    registry = CollectorRegistry()
    Gauge("nothing", "Nothing.", registry=registry).set(math.nan)
    assert page(registry.collect(), openmetrics=False).endswith(b"\nnothing NaN\n")


def test_a_kind_that_the_page_cannot_show_is_refused() -> None:
    registry = CollectorRegistry()
    Summary("tested", "A summary.", registry=registry)
    with pytest.raises(ValueError, match="tested is of kind summary"):
        page(registry.collect(), openmetrics=False)
