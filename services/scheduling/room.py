"""How many items a batch on the event loop may have: fewer while other requests come, which wait for it."""

from __future__ import annotations

from services.telemetry import metrics

QUIET_SECONDS = 0.1  # without another request, after which batches may be large


class Room:
    """The limit of the batches of one operation, by what else the process is asked.

    A batch of one millisecond lets other requests pass, but the processor's caches hold little of Python's code after
    it: a request of 64 images takes an eighth longer in five batches than in one.

    Args:
        shared: most items while other requests come.
        alone: most items when for `QUIET_SECONDS` only requests of more than `shared` items have come here.
    """

    def __init__(self, shared: int, alone: int) -> None:
        self.shared = shared
        self.alone = max(shared, alone)
        self._large = 0  # requests of more than `shared` items that came to this operation
        self._others = metrics.BEGUN.count
        self._since = float("-inf")  # when the last other request was noticed

    def came(self, count: int) -> None:
        """Note a request of so many items."""
        if count > self.shared:
            self._large += 1

    def items(self, now: float) -> int:
        """Most items of a batch that begins now, by `time.monotonic()`."""
        others = metrics.BEGUN.count - self._large
        if others != self._others:
            self._others = others
            self._since = now
        return self.alone if now - self._since >= QUIET_SECONDS else self.shared
