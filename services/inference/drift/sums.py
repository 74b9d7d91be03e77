"""Evidence that the rates of events left their bands: Shiryaev-Roberts sums of bets.

Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2022.

A bet of stake s on an event pays 1 + s (x / high - 1), or 1 + s ((1 - x) / (1 - low) - 1), where x in 0..1 is the vote
of a slice. That is linear in x, so its expectation is at most 1 whenever the expectation of x is in the band, whatever
depends on what within the slice. A sum adds 1 and multiplies by what the bet pays. Without a change the mean of a sum
is at most the number of slices, and so is the mean of sums of different bets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

STAKES = (0.01, 0.05, 0.2, 0.6)  # of parallel bets: the best stake depends on the size of the change
RARE = 0.001  # bands keep this distance from 0 and 1, so that a bet pays at most 600.4


class Bets:
    """Bets that the rate of each event is above, or below, its band: `low` and `high` are [E], or [S,E] by stream."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._up = 1 / np.maximum(high, RARE)
        self._down = 1 / np.maximum(1 - low, RARE)
        self._stakes = np.array(STAKES)[:, None, None]

    def pays(self, votes: np.ndarray) -> np.ndarray:
        """What each bet pays for the votes [S,E] of streams: [S,stakes,2,E], above the band and then below it."""
        gains = np.stack([votes * self._up, (1 - votes) * self._down], axis=1) - 1
        return np.asarray(1 + self._stakes * gains[:, None])


def evidence(sums: np.ndarray, kinds: Mapping[str, slice]) -> dict[str, np.ndarray]:
    """The detector [S] by kind of event, from sums [S,stakes,2,E]; their mean over the kinds is one detector too."""
    return {kind: sums[..., events].mean(axis=(1, 2, 3)) for kind, events in kinds.items()}


@dataclass(frozen=True)
class Finding:
    """What the leading bet says of a change.

    Attributes:
        event: the index of its event.
        observed: the mean vote on it since the change began.
        slices: slices since the change began, as the bet estimates.
    """

    event: int
    observed: float
    slices: int


class Trail:
    """The sums of one stream, and since when each bet wins.

    A change is estimated to have begun where a bet has gained most since (E. Page, Biometrika 1954). The votes since
    then are kept.

    Attributes:
        sums: [1,stakes,2,E].
    """

    def __init__(self, events: int) -> None:
        self._shape = (1, len(STAKES), 2, events)
        self.begin_afresh()

    def begin_afresh(self) -> None:
        self.sums, self._gains, self._slices, self._votes = (np.zeros(self._shape) for _ in range(4))

    def take(self, pays: np.ndarray, votes: np.ndarray) -> None:
        """Process a slice: what the bets pay, [1,stakes,2,E], for the votes [1,E]."""
        wins = self._gains > 1
        self._slices = wins * self._slices + 1
        self._votes = wins * self._votes + votes
        self._gains = pays * np.maximum(self._gains, 1)
        self.sums = pays * (self.sums + 1)

    def finding(self, events: slice) -> Finding:
        """What the bet with the largest sum on these events says."""
        sums = self.sums[..., events]
        place = np.unravel_index(int(sums.argmax()), sums.shape)
        slices = float(self._slices[..., events][place])
        return Finding(events.start + int(place[-1]), float(self._votes[..., events][place]) / slices, int(slices))
