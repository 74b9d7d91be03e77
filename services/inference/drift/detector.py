"""A sequential test of whether the scored images are still like the calibration images, all but a tolerated share.

It goes from slice to slice of time. The vote of a slice on an event is the mean over the clients of the mean over each
client's images. Bets on the votes (`sums`) are evidence, of all images together and of each client's alone.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from services.inference.drift.alarms import HELD, Alarms, Cause
from services.inference.drift.clients import NAMED, Client, Clients
from services.inference.drift.events import Events
from services.inference.drift.slice import Slice
from services.inference.drift.sums import Bets, Trail, evidence
from services.telemetry import metrics

ALARM = 1e8  # least mean number of slices to a false alarm; within m slices its probability is at most m / ALARM
RISING = ALARM**0.5  # an alarm does not end while there is as much evidence for another
OF_ONE = NAMED  # times as much evidence names one client: there are so many that chance could point at
TOLERATED = 0.02
SLICE_SECONDS = 10.0

log = logging.getLogger("duet.drift")


@dataclass(frozen=True)
class Rate:
    """The rate of an event in the last HELD slices that voted, and the band of rates that counts as no change."""

    observed: float | None  # None: no image voted
    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Past:
    """A slice that has ended: its images, how many of them were repeats, and the votes [E] (None: no image voted)."""

    images: int
    repeats: int
    votes: np.ndarray | None


class Drift:
    """The drift test of one model, from the time it is loaded. Time is passed in, as seconds since 1970.

    Args:
        name: the model's name, for the log.
        size: number of calibration images.
        class_sizes: see `Events`.
        class_names: of the classes, for the log.
        tolerated: the share of the images that may be strange.
        slice_seconds: length of a slice.

    Attributes:
        images: number of images so far.
        slices: number of slices that have ended and in which an image voted.
        alarms: the last alarms.
        clients: the streams by client.
    """

    def __init__(
        self,
        name: str,
        size: int,
        class_sizes: Sequence[int] = (),
        class_names: Sequence[str] = (),
        *,
        tolerated: float = TOLERATED,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self.tolerated, self.slice_seconds = tolerated, slice_seconds
        self.images = self.slices = 0
        self.alarms = Alarms()
        self.events = Events(size, class_sizes, tolerated)
        self._name, self._class_names = name, class_names
        self._bets = Bets(self.events.low, self.events.high)
        self._trail = Trail(len(self.events.low))
        self.clients = Clients(self._trail.sums.shape[1:])
        self._open = Slice(self.events)
        self._begin = self._end = -math.inf  # of the open slice
        self._past: deque[Past] = deque(maxlen=HELD)

    def see(
        self,
        p_values: Sequence[float],
        labels: Sequence[int] | None,
        marks: Sequence[int],
        now: float,
        client: bytes | None = None,
    ) -> None:
        """Take the images of a request that is answered at the time `now`.

        Args:
            p_values: of the images.
            labels: their predicted classes, if the model predicts any.
            marks: of the images, see `marks_of`.
            now: seconds since 1970.
            client: its name as it came; None: it has none.
        """
        if not self._begin <= now < self._end:
            self.settle(now)
        self.images += len(marks)
        stream = self.clients.of(client, self.slices)
        self._open.count(stream.name, p_values, labels, stream.repeats.new(marks), len(marks))

    def settle(self, now: float) -> None:
        """End the open slice, if its time has passed."""
        if self._begin <= now < self._end:
            return
        if self._open.images:
            self.take(self._open, self._end)
            self._open = Slice(self.events)
        self._begin = now - now % self.slice_seconds
        self._end = self._begin + self.slice_seconds

    def take(self, ended: Slice, when: float) -> None:
        """Process a slice, which has ended at the time `when`."""
        if not ended.counts:
            self._past.append(Past(ended.images, ended.repeats, None))
            return
        self.slices += 1
        counts: dict[Client, np.ndarray] = {}
        for name, counted in ended.counts.items():
            client = self.clients.known(name)
            counts[client] = np.array(counted) + counts.get(client, 0)
        shares = self.events.shares(np.array(list(counts.values())))
        votes = shares.mean(axis=0, keepdims=True)
        self._past.append(Past(ended.images, ended.repeats, votes[0]))
        self._look_at_each(list(counts), self._bets.pays(shares))
        self._trail.take(self._bets.pays(votes), votes)
        self._look_at_all(when)

    def _look_at_each(self, clients: Sequence[Client], pays: np.ndarray) -> None:
        sums = pays * (np.array([client.sums for client in clients]) + 1)
        enough = _mean(evidence(sums, self.events.kinds)) >= OF_ONE * ALARM
        for client, own, reached in zip(clients, sums, enough, strict=True):
            client.sums = np.zeros_like(own) if reached else own
            if reached:
                client.strange_until = self.slices + HELD

    def _look_at_all(self, when: float) -> None:
        found = self._evidence()
        total, raised, ended = _mean(found), None, None
        if total >= ALARM:
            kind = max(found, key=lambda each: found[each])
            finding = self._trail.finding(self.events.kinds[kind])
            band = float(self.events.low[finding.event]), float(self.events.high[finding.event])
            cause = Cause(kind, finding.event, finding.observed, band, finding.slices)
            self._trail.begin_afresh()
            raised = self.alarms.reach(cause, self.slices, when)
        elif total < RISING:
            ended = self.alarms.pass_over(self.slices, when)
        if active := self.alarms.active:
            active.clients += [one.name for one in self.strange if one.name not in active.clients]
        if raised:
            log.warning("drift: alarm: %s", self._sentence(raised.cause, raised.clients))
        if ended:
            log.warning("drift: the alarm of %s that was raised at %s has ended", self._name, utc(ended.raised))

    def _sentence(self, cause: Cause, clients: Sequence[str]) -> str:
        rates = f"{cause.observed:.2%} observed, {cause.allowed[0]:.2%} to {cause.allowed[1]:.2%} allowed"
        length = f"in {cause.slices} slices of {self.slice_seconds:g} s"
        what = f"p-values up to {self.events.expected[cause.event]:.3g}"
        if cause.kind == "class":
            what = f"class {self._class_names[cause.event - self.events.kinds['class'].start]}"
        by = f"; clients: {', '.join(clients)}" if clients else ""
        return (
            f"the images sent to {self._name} are no longer like its calibration images: {what}: {rates}, {length}{by}"
        )

    @property
    def streams(self) -> list[Client]:
        """The clients with a name, and then the rest; empty as long as no client has a name."""
        return [*self.clients.named.values(), self.clients.rest] if self.clients.named else []

    @property
    def strange(self) -> list[Client]:
        """Those whose images alone are evidence enough, within the last HELD slices."""
        return [client for client in self.streams if client.strange_until > self.slices]

    @property
    def repeats(self) -> float:
        """Share of images that their client had sent before, in the last HELD slices and the open one."""
        images = self._open.images + sum(past.images for past in self._past)
        return (self._open.repeats + sum(past.repeats for past in self._past)) / max(1, images)

    def evidence(self) -> dict[str, float]:
        """log10 of the detectors by kind, at least 0; the mean of the detectors decides on the alarm."""
        return {kind: math.log10(max(1.0, value)) for kind, value in self._evidence().items()}

    def evidence_of(self, client: Client) -> float:
        """log10 of the detector of one client, at least 0."""
        return math.log10(max(1.0, float(_mean(evidence(client.sums[None], self.events.kinds))[0])))

    def rates(self) -> dict[str, list[Rate]]:
        """Rates by kind: of p-values up to each level, and of each class."""
        votes = [past.votes for past in self._past if past.votes is not None]
        observed = np.mean(votes, axis=0).tolist() if votes else [None] * len(self.events.low)
        columns = (self.events.expected.tolist(), self.events.low.tolist(), self.events.high.tolist())
        rates = [Rate(*each) for each in zip(observed, *columns, strict=True)]
        return {kind: rates[events] for kind, events in self.events.kinds.items()}

    def show(self, version: str, clock: Callable[[], float]) -> None:
        """Register the metrics; they are computed when the page of metrics is read, at the time of the clock."""

        def shown(value: Callable[[], float]) -> float:
            self.settle(clock())
            return value()

        for kind in self.events.kinds:
            gauge = metrics.DRIFT_EVIDENCE.labels(self._name, version, kind)
            gauge.set_function(partial(shown, partial(self._log10, kind)))
        metrics.DRIFT_ALARM.labels(self._name, version).set_function(
            partial(shown, lambda: self.alarms.active is not None)
        )
        metrics.DRIFT_REPEATS.labels(self._name, version).set_function(partial(shown, lambda: self.repeats))

    def _log10(self, kind: str) -> float:
        return self.evidence()[kind]

    def _evidence(self) -> dict[str, float]:
        found = evidence(self._trail.sums, self.events.kinds)
        return {kind: float(value[0]) for kind, value in found.items()}


def _mean(found: Mapping[str, Any]) -> Any:
    """The mean of the detectors of the kinds, which is a detector too."""
    return sum(found[kind] for kind in found) / len(found)


def utc(seconds: float) -> str:
    """A time in RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
