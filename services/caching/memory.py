"""The memory tier: least recently used out first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from services.telemetry import metrics

OVERHEAD = 200  # bytes of bookkeeping an entry: key, two objects, a slot in the dict (measured with tracemalloc)


class MemoryTier:
    """Bytes by key, for one event loop.

    Args:
        limit: bytes to hold, keys and bookkeeping included.
    """

    name = "memory"

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for key in keys:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            found.append(value)
        return found

    async def put(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            self._drop(key)
            if _cost(key, value) <= self._limit:  # else it would push out everything, and then itself
                self._values[key] = value
                self._held += _cost(key, value)
        while self._held > self._limit:
            self._drop(next(iter(self._values)))
        metrics.CACHE_BYTES.set(self._held)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._drop(key)
        metrics.CACHE_BYTES.set(self._held)

    async def close(self) -> None:
        await self.delete(list(self._values))

    def _drop(self, key: str) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._held -= _cost(key, value)


def _cost(key: str, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD
