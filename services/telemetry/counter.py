"""A Prometheus counter for one event loop.

prometheus_client's counter takes a lock: 1 µs for each addition, and a request makes several. Here all additions happen
on the event loop, so a plain number is enough (0.1 µs), which the metrics page reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Tally:
    """The count of one combination of label values."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def inc(self, amount: int = 1) -> None:
        self.count += amount


class Counter(Collector):
    """A family of counts, registered under its name.

    Args:
        name: of the metric, with `_total`.
        documentation: one line of help.
        labels: names of the labels; without labels the family has one count.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self._about = (name, documentation)
        self._labels = tuple(labels)
        self._tallies: dict[tuple[str, ...], Tally] = {} if labels else {(): Tally()}
        REGISTRY.register(self)

    def labels(self, *values: str) -> Tally:
        tally = self._tallies.get(values)
        if tally is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._about[0]} has labels {', '.join(self._labels)}; got {values}")
            tally = self._tallies[values] = Tally()
        return tally

    def inc(self, amount: int = 1) -> None:
        """Add to the count of a family without labels."""
        self.labels().inc(amount)

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(*self._about, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for values, tally in list(self._tallies.items()):
            family.add_metric(values, tally.count)
        yield family
