"""Single flight: what is being computed is not computed beside it.

The first to miss a key leads and the others follow. A leader that fails, is cancelled or runs out of time lands
nothing, and then a follower takes its place: followers inherit neither its error nor its cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

Flight = asyncio.Future[bytes | None]


class Flights:
    """Values on their way, by key, for one event loop."""

    def __init__(self) -> None:
        self._flying: dict[str, Flight] = {}

    def claim(self, keys: Sequence[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """The flights that the caller leads from now on, to be landed or abandoned, and those that others lead."""
        mine: dict[str, Flight] = {}
        theirs: dict[str, Flight] = {}
        for key in keys:
            if (flight := self._flying.get(key)) is not None:
                theirs[key] = flight
            else:
                mine[key] = self._flying[key] = asyncio.get_running_loop().create_future()
        return mine, theirs

    def land(self, mine: dict[str, Flight], values: Mapping[str, bytes]) -> None:
        """Give followers what they wait for, and take it from `mine`."""
        for key, value in values.items():
            self._end(mine, key, value)

    def abandon(self, mine: dict[str, Flight]) -> None:
        """End what has not landed: whoever follows has to claim anew."""
        for key in list(mine):
            self._end(mine, key, None)

    def _end(self, mine: dict[str, Flight], key: str, value: bytes | None) -> None:
        if (flight := mine.pop(key, None)) is not None:
            del self._flying[key]
            flight.set_result(value)


async def follow(theirs: Mapping[str, Flight], seconds: float | None) -> dict[str, bytes]:
    """What landed of flights that others lead.

    Raises:
        TimeoutError: not all of them ended within `seconds`.
    """
    _, flying = await asyncio.wait(theirs.values(), timeout=seconds)
    if flying:
        raise TimeoutError
    landed = {key: flight.result() for key, flight in theirs.items()}
    return {key: value for key, value in landed.items() if value is not None}
