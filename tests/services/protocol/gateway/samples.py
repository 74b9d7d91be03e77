"""What the metrics count at a moment."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY


def samples(name: str) -> Iterator[tuple[dict[str, str], float]]:
    for metric in REGISTRY.collect():
        yield from ((sample.labels, sample.value) for sample in metric.samples if sample.name == name)


def total(name: str, **labels: str) -> float:
    return sum(value for given, value in samples(name) if labels.items() <= given.items())
