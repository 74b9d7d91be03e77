"""Alarms of drift, each with a beginning, a cause and an end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT = 32  # alarms
HELD = 128  # slices without another alarm, at least, after which one ends


@dataclass(frozen=True)
class Cause:
    """Why an alarm was raised.

    Attributes:
        kind: `rate` (of p-values up to a level) or `class`.
        event: the index of the event among those of the test.
        observed: the mean vote on it since the change began.
        allowed: the band of rates that count as no change.
        slices: slices from the estimated beginning of the change to the alarm.
    """

    kind: str
    event: int
    observed: float
    allowed: tuple[float, float]
    slices: int


@dataclass
class Alarm:
    """One alarm.

    Attributes:
        cause: as it was when the alarm was raised.
        raised, ended: seconds since 1970; `ended` is None while the alarm is active.
        clients: names of those whose images alone are evidence enough, in the order in which they were found.
    """

    cause: Cause
    raised: float
    ended: float | None = None
    clients: list[str] = field(default_factory=list)


class Alarms:
    """The last alarms of one test.

    An alarm is active until HELD slices, or twice as many as it took, pass without the evidence reaching it again.
    """

    def __init__(self) -> None:
        self.all: deque[Alarm] = deque(maxlen=KEPT)  # the newest is the last
        self._last = 0  # slice in which the evidence last reached the alarm
        self._hold = 0

    @property
    def active(self) -> Alarm | None:
        return self.all[-1] if self.all and self.all[-1].ended is None else None

    def remaining(self, number: int) -> int:
        """Slices, after that of the given number, in which the active alarm ends if nothing more is found."""
        return max(1, self._last + self._hold - number)

    def reach(self, cause: Cause, number: int, when: float) -> Alarm | None:
        """Note that the evidence has reached the alarm in a slice; returns the alarm if it is a new one."""
        self._last = number
        if self.active:  # it goes on; the slowest of its findings says how long it is held
            self._hold = max(self._hold, 2 * cause.slices)
            return None
        self._hold = max(HELD, 2 * cause.slices)
        self.all.append(Alarm(cause, when))
        return self.all[-1]

    def pass_over(self, number: int, when: float) -> Alarm | None:
        """Note a slice in which there is no evidence for another alarm; returns the alarm that ends with it."""
        alarm = self.active
        if alarm is None or number < self._last + self._hold:
            return None
        alarm.ended = when
        return alarm
