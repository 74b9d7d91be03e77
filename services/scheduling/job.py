"""The items of one request in the micro-batcher, their outputs, and whether the caller still waits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from services.call import Call, late
from services.errors import CallerLeft, DeadlineExceeded, DuetError

Arrays = dict[str, np.ndarray]


@dataclass(eq=False, slots=True)
class Job:
    """One request's items in the queue."""

    inputs: Arrays
    count: int
    call: Call
    future: asyncio.Future[Arrays]
    enqueued: float
    timer: asyncio.TimerHandle | None = None
    taken: int = 0
    done: int = 0
    answered: bool = False
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    outputs: Arrays = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Arrays:
        return {name: array[start:stop] for name, array in self.inputs.items()}

    def keep(self, start: int, rows: Arrays) -> None:
        """Store computed rows at their place; they may be views of a whole batch."""
        size = len(next(iter(rows.values())))
        if size == self.count:
            self.outputs = rows
            self.done = size
        else:
            self._copy(start, rows)
            self.done += size
        if self.done == self.count and not self.future.done():
            if self.call.expired:
                self.expire()
            else:
                self.answered = True
                self.future.set_result(self.outputs)

    @property
    def abandon_reason(self) -> str | None:
        """Why the job was abandoned, as a metric label; None: the caller waits, the job is answered, or it failed."""
        if self.answered:
            return None
        if self.future.cancelled():
            return "deadline" if self.call.expired else "caller-left"
        error = self.future.exception() if self.future.done() else None
        if isinstance(error, CallerLeft):
            return "caller-left"
        return "deadline" if isinstance(error, DeadlineExceeded) else None

    def _copy(self, start: int, rows: Arrays) -> None:
        for name, array in rows.items():
            if name not in self.outputs:
                self.outputs[name] = np.empty((self.count, *array.shape[1:]), array.dtype)
            self.outputs[name][start : start + len(array)] = array

    def expire(self) -> None:
        self.fail(late())

    def fail(self, error: DuetError) -> None:
        if not self.future.done():  # it is done if the caller left
            # Its traceback may have a frame that refers to this job, and a cycle would stay until a garbage collection.
            self.future.set_exception(error.with_traceback(None))


@dataclass(slots=True)
class Slice:
    """The rows of one job in one batch."""

    job: Job
    start: int
    stop: int


def join(batch: list[Slice]) -> Arrays:
    """The inputs of a batch; those of a single slice are not copied."""
    parts = [part.job.rows(part.start, part.stop) for part in batch]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
