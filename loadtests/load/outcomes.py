"""What became of each request that was due, with its latency, mergeable over processes.

A latency counts from the moment at which the request was due ("coordinated omission", G. Tene), in microseconds with
three significant digits, as in an HDR histogram. Counts are kept by second, so that a step of a search and a picture
over time need no other records.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from enum import StrEnum

from hdrh.histogram import HdrHistogram

HOUR = 3_600_000_000  # µs; the largest latency that is told apart
DIGITS = 3


class Outcome(StrEnum):
    """What became of a request."""

    right = "right"  # status 200, and the answer was checked
    wrong = "wrong"  # status 200, and the answer is not what it must be
    refused = "refused"  # 429 or 503: the service said that it is full or not ready
    late = "late"  # 504 or 408: past its deadline; or no answer when the run ended
    broken = "broken"  # another status, or the connection failed
    unsent = "never sent"  # due, and not sent before the run ended


def of_status(status: int) -> Outcome:
    """The outcome that a status says; 200 is right until the answer has been looked at, 0 is no answer."""
    if status == 200:
        return Outcome.right
    if status in (429, 503):
        return Outcome.refused
    return Outcome.late if status in (408, 504) else Outcome.broken


Key = tuple[str, str, int]  # route, outcome, second since the epoch in which the request was due


class Outcomes:
    """Counts of latencies, by route, outcome and second.

    Attributes:
        counts: of each latency in µs.
        lags: how late requests left, in µs, though nothing but the load generator held them up.
    """

    def __init__(self) -> None:
        self.counts: dict[Key, Counter[int]] = defaultdict(Counter)
        self.lags: Counter[int] = Counter()

    def add(self, route: str, outcome: Outcome, due: float, seconds: float) -> None:
        """Count a request that was due at an epoch time and whose answer came `seconds` later."""
        self.counts[route, outcome.value, int(due)][_rounded(seconds)] += 1

    def add_lag(self, seconds: float) -> None:
        self.lags[_rounded(seconds)] += 1

    def dump(self) -> dict[str, object]:
        """For another process: lists, strings and numbers."""
        rows = [[*key, [[latency, count] for latency, count in found.items()]] for key, found in self.counts.items()]
        return {"counts": rows, "lags": [[lag, count] for lag, count in self.lags.items()]}

    def merge(self, dumped: dict[str, list[list[object]]]) -> None:
        """Add what another process dumped."""
        for route, outcome, second, pairs in dumped["counts"]:
            counter = self.counts[str(route), str(outcome), int(second)]  # type: ignore[call-overload]
            for latency, count in pairs:  # type: ignore[attr-defined]
                counter[latency] += count
        for lag, count in dumped["lags"]:
            self.lags[lag] += count  # type: ignore[index, operator]

    def clear(self) -> None:
        self.counts.clear()
        self.lags.clear()

    def routes(self) -> list[str]:
        return sorted({route for route, _, _ in self.counts})

    def count(self, route: str | None = None, seconds: range | None = None) -> dict[Outcome, int]:
        """Requests of each outcome; of all routes, and of the whole run, where nothing is given."""
        found = dict.fromkeys(Outcome, 0)
        for (at, outcome, second), counter in self.counts.items():
            if route in (None, at) and (seconds is None or second in seconds):
                found[Outcome(outcome)] += counter.total()
        return found

    def count_within(self, route: str, micros: int, seconds: range | None = None) -> int:
        """Right answers that came within a latency in µs."""
        return sum(
            count
            for (at, outcome, second), counter in self.counts.items()
            if at == route and outcome == Outcome.right and (seconds is None or second in seconds)
            for latency, count in counter.items()
            if latency <= micros
        )

    def histogram(
        self, route: str | None = None, seconds: range | None = None, outcomes: Iterable[Outcome] = (Outcome.right,)
    ) -> HdrHistogram:
        """Latencies, in µs."""
        histogram = HdrHistogram(1, HOUR, DIGITS)
        wanted = {outcome.value for outcome in outcomes}
        for (at, outcome, second), counter in self.counts.items():
            if outcome in wanted and route in (None, at) and (seconds is None or second in seconds):
                for latency, count in counter.items():
                    histogram.record_value(latency, count)
        return histogram

    def lag(self, percent: float) -> float:
        """A percentile of the lags, in seconds."""
        histogram = HdrHistogram(1, HOUR, DIGITS)
        for lag, count in self.lags.items():
            histogram.record_value(lag, count)
        return float(histogram.get_value_at_percentile(percent) / 1e6)


def _rounded(seconds: float) -> int:
    """Microseconds, at least 1 and at most an hour, rounded to three significant digits."""
    micros = min(max(1, round(seconds * 1e6)), HOUR)
    return int(round(micros, DIGITS - len(str(micros)))) if micros >= 10**DIGITS else micros
