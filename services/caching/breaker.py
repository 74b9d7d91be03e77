"""A circuit breaker (M. Nygard, Release It!, 2007): closed, open after a failure, half-open during a probe."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.telemetry import metrics

log = logging.getLogger("duet.cache")

CLOSED, HALF_OPEN, OPEN = 0.0, 0.5, 1.0
QUIET_SECONDS = 60.0  # an unstable Redis causes at most two log lines a minute


class RedisUnavailable(Exception):
    """Redis did not answer in time, or the breaker is open."""


class Breaker:
    """Whether commands may be sent to a server.

    Args:
        name: label of the metric.
        tripped, reset: the log lines when the breaker opens (`{}` is the cause) and when it closes.
    """

    def __init__(self, name: str, tripped: str, reset: str) -> None:
        self._state = metrics.REDIS_BREAKER.labels(name)
        self._words = tripped, reset
        self._silent_until = 0.0
        self._said = False
        self.open = False
        self._state.set(CLOSED)

    def trip(self, cause: Exception) -> None:
        """Open the breaker."""
        self._state.set(OPEN)
        if not self.open:
            self.open = True
            if time.monotonic() >= self._silent_until:
                self._silent_until = time.monotonic() + QUIET_SECONDS
                self._said = True
                log.warning(self._words[0].format(f"{type(cause).__name__}: {cause}".rstrip(": ")))

    def reset(self) -> None:
        """Close the breaker."""
        self._state.set(CLOSED)
        if self.open:
            self.open = False
            if self._said:
                self._said = False
                log.warning(self._words[1])

    @contextmanager
    def trying(self) -> Iterator[None]:
        """An open breaker is half-open for the length of this block."""
        if self.open:
            self._state.set(HALF_OPEN)
        yield
