"""Single flight: of requests that need the same item at the same time, one computes it.

The first request that misses a key leads, and the others follow. When a leader fails, is cancelled or misses its
deadline, a follower takes its place: the leader's error or cancellation does not reach its followers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

Flight = asyncio.Future[bytes | None]


class Flights:
    """The values that are being computed, by key, for one event loop."""

    def __init__(self) -> None:
        self._flying: dict[str, Flight] = {}

    def claim(self, keys: Sequence[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """The flights that the caller now leads and must land or abandon, and the flights that others lead."""
        mine: dict[str, Flight] = {}
        theirs: dict[str, Flight] = {}
        for key in keys:
            if (flight := self._flying.get(key)) is not None:
                theirs[key] = flight
            else:
                mine[key] = self._flying[key] = asyncio.get_running_loop().create_future()
        return mine, theirs

    def land(self, mine: dict[str, Flight], values: Mapping[str, bytes]) -> None:
        """Give the followers their values, and remove these flights from `mine`."""
        for key, value in values.items():
            self._end(mine, key, value)

    def abandon(self, mine: dict[str, Flight]) -> None:
        """End the flights that have not landed; their followers claim the keys again."""
        for key in list(mine):
            self._end(mine, key, None)

    def _end(self, mine: dict[str, Flight], key: str, value: bytes | None) -> None:
        if (flight := mine.pop(key, None)) is not None:
            del self._flying[key]
            flight.set_result(value)


async def follow(theirs: Mapping[str, Flight], seconds: float | None) -> dict[str, bytes]:
    """The values that landed of flights that others lead.

    Raises:
        TimeoutError: not all of them ended within `seconds`.
    """
    _, flying = await asyncio.wait(theirs.values(), timeout=seconds)
    if flying:
        raise TimeoutError
    landed = {key: flight.result() for key, flight in theirs.items()}
    return {key: value for key, value in landed.items() if value is not None}
