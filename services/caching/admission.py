"""When a request asks Redis: when computing its items takes longer than one round trip, both measured.

A hit in Redis saves the compute time of one item. All items of a request share one round trip. So a large batch of a
fast model asks Redis, and a single image of the same model does not. The same rule decides which answers are written
to Redis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Admission = Literal["auto", "always", "never"]

LEASE_ROUND_TRIPS = 20  # a lease adds two round trips and some polling: a tenth of the compute time that it may save
# The shortest and the longest lease. Under load a replica takes several times the measured time, and its lease must not
# expire meanwhile; when a replica dies, the others wait for the rest of its lease.
LEASE_SECONDS = (2.0, 30.0)


@dataclass(frozen=True)
class AdmissionEstimate:
    """The two times that decide whether a request asks Redis.

    Attributes:
        admission: with "always" and "never" the times do not count.
        item_seconds: compute time of one item.
        round_trip_seconds: time to ask Redis for one key; None before the first answer of Redis.
    """

    admission: Admission
    item_seconds: float
    round_trip_seconds: float | None

    @property
    def from_items(self) -> int | None:
        """The smallest request that asks Redis; None: none does."""
        if self.admission == "always":
            return 1
        if self.admission == "never" or self.round_trip_seconds is None or self.item_seconds <= 0:
            return None
        return max(1, math.ceil(self.round_trip_seconds / self.item_seconds))

    def asks(self, items: int) -> bool:
        return self.from_items is not None and items >= self.from_items

    @property
    def leases(self) -> bool:
        """Whether replicas take leases, so that one of them computes an item."""
        if self.from_items is None or self.round_trip_seconds is None:
            return False
        return self.item_seconds > LEASE_ROUND_TRIPS * self.round_trip_seconds

    def lease_seconds(self, items: int) -> float:
        """How long a lease on `items` holds: four times their expected compute time."""
        return min(max(4 * items * self.item_seconds, LEASE_SECONDS[0]), LEASE_SECONDS[1])
