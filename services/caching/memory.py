"""The memory tier: a cache bounded in bytes that drops the least recently used entries first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from services.telemetry import metrics

# Bytes of an entry beside key and value: two objects, a node, slots of the hash table. Measured in resident memory they
# are 220 to 275, depending on how full the table is; a value near the upper end keeps the tier within its limit.
OVERHEAD = 270


class MemoryTier:
    """Bytes by key, for one event loop. The values were checked before they were stored.

    Args:
        limit: bytes of all entries, keys and bookkeeping included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values of those `keys` that are in memory."""
        found = {}
        values, touch = self._values, self._values.move_to_end
        for key in keys:
            value = values.get(key)
            if value is not None:
                touch(key)
                found[key] = value
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        held = self._values
        for key, value in values.items():
            if (old := held.pop(key, None)) is not None:
                self._held -= _cost(key, old)
            if (cost := _cost(key, value)) <= self._limit:  # a larger value would evict all others and then itself
                held[key] = value
                self._held += cost
        evicted = 0
        while self._held > self._limit:
            self._held -= _cost(*held.popitem(last=False))
            evicted += 1
        if evicted:
            metrics.CACHE_EVICTIONS.inc(evicted)
        metrics.CACHE_BYTES.set(self._held)

    def clear(self) -> None:
        self._values.clear()
        self._held = 0
        metrics.CACHE_BYTES.set(0)


def _cost(key: str, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD
