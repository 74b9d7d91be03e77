"""What Redis is worth: the measured cost of computing against the measured round trip.

A hit in Redis saves the compute time of an item and costs a round trip, whose price is shared by all items of the
request. So a request asks Redis if computing its items would take longer than asking: a large batch of a cheap model
does, one image of it does not. Keeping an answer there follows the same rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Admission = Literal["auto", "always", "never"]

LEASE_ROUND_TRIPS = 20  # a lease costs two round trips more and some polling: a tenth of what it may save
# The shortest and the longest. A replica in a stampede takes several times what it measured, and must not look dead;
# one that is dead holds up others for no longer.
LEASE_SECONDS = (2.0, 30.0)


@dataclass(frozen=True)
class Worth:
    """The two numbers, and what follows from them.

    Attributes:
        admission: "always" and "never" decide by themselves.
        item_seconds: compute time of one item.
        round_trip_seconds: of asking Redis for one key; None while Redis is not there.
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
        """Whether replicas agree on who computes an item."""
        if self.from_items is None or self.round_trip_seconds is None:
            return False
        return self.item_seconds > LEASE_ROUND_TRIPS * self.round_trip_seconds

    def lease_seconds(self, items: int) -> float:
        """How long a lease on the computing of `items` holds: four times as long as it should take."""
        return min(max(4 * items * self.item_seconds, LEASE_SECONDS[0]), LEASE_SECONDS[1])
