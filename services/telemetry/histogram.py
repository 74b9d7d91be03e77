"""A Prometheus histogram for one event loop.

prometheus_client's histogram takes a lock and walks its buckets: 2 µs for an observation, and a request makes six.
Here all observations happen on the event loop, so a bisection and two additions are enough (0.2 µs).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """The observations of one combination of label values."""

    __slots__ = ("_bounds", "_examples", "_traced", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._examples: dict[int, tuple[bytes, float, float]] = {}
        self._traced: dict[int, tuple[bytes, float, float, str]] = {}
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_request(self, value: float, request: bytes) -> None:
        """Observe, and keep the id of the request as the exemplar of its bucket."""
        place = bisect_left(self._bounds, value)
        self.counts[place] += 1
        self.total += value
        self._examples[place] = request, value, time.time()

    def observe_traced(self, value: float, request: bytes, trace: str) -> None:
        """Observe a request that is traced; as an exemplar it goes before those that are not."""
        place = bisect_left(self._bounds, value)
        self.counts[place] += 1
        self.total += value
        self._traced[place] = request, value, time.time(), trace

    def exemplar(self, place: int) -> Exemplar | None:
        """The last request in a bucket, of those that are traced if there are any; None if no id was kept."""
        if (traced := self._traced.get(place)) is not None:
            request, value, when, trace = traced
            return Exemplar({"request_id": request.decode(), "trace_id": trace}, value, when)
        if (example := self._examples.get(place)) is None:
            return None
        request, value, when = example
        return Exemplar({"request_id": request.decode()}, value, when)


class Histogram(Collector):
    """A family of series, registered under its name.

    Args:
        name: of the metric, with its unit.
        documentation: one line of help.
        labels: names of the labels.
        buckets: upper bounds, ascending; +Inf is added.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, buckets: Sequence[float]) -> None:
        self._about = (name, documentation)
        self._labels = tuple(labels)
        self._bounds = tuple(float(bound) for bound in buckets)
        self._series: dict[tuple[str, ...], Series] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> Series:
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._about[0]} has labels {', '.join(self._labels)}; got {values}")
            series = self._series[values] = Series(self._bounds)
        return series

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(*self._about, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        bounds = [f"{bound}" for bound in self._bounds] + ["+Inf"]
        for values, series in list(self._series.items()):
            below = 0
            buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
            for place, (bound, count) in enumerate(zip(bounds, series.counts, strict=True)):
                below += count
                example = series.exemplar(place)
                buckets.append((bound, below) if example is None else (bound, below, example))
            family.add_metric(values, buckets=buckets, sum_value=series.total)
        yield family
