"""The jobs that wait for one operation, by weighted fair queueing (Demers, Keshav, Shenker 1989).

A job of one item does not wait for all items of a job of a thousand, and equal jobs are served in order of arrival.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from services.errors import DuetError
from services.scheduling.job import Job, Slice

CHECKED = 16  # jobs a batch, on average, that are checked for whether somebody waits: all of a thousand would take 1 ms


class FairQueue:
    """Jobs in the order in which they would finish if all shared the model equally.

    With really equal shares, equal jobs would all finish at the end: under overload, after their deadlines.

    Args:
        dropped: called with each job that has left the queue because nobody waits for it, or because it failed.

    Attributes:
        waiting: items of all jobs.
    """

    def __init__(self, dropped: Callable[[Job], None]) -> None:
        self._dropped = dropped
        self._jobs: list[tuple[float, int, Job]] = []  # a heap, by virtual finish time, then in order of arrival
        self._virtual = 0.0
        self._arrived = 0
        self._taken = 0  # batches since all jobs were last checked
        self.waiting = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def push(self, job: Job) -> None:
        self._arrived += 1
        heapq.heappush(self._jobs, (self._virtual + job.count, self._arrived, job))
        self.waiting += job.count

    def ahead_of(self, count: int) -> int:
        """Items that would be computed before the last of so many new ones."""
        finish = self._virtual + count
        return sum(job.count - job.taken for when, _, job in self._jobs if when <= finish)

    def take(self, most_items: int, most_bytes: int) -> list[Slice]:
        """The next batch, of at least one item if any job waits.

        Args:
            most_items: in the batch.
            most_bytes: of their inputs.
        """
        self._taken += 1
        if self._taken * CHECKED >= len(self._jobs):
            self._taken = 0
            self._drop_dead()
        first = self._first()
        if first is None:
            return []
        item_bytes = max(1, sum([array.nbytes for array in first.inputs.values()]) // first.count)  # all are alike
        room = max(1, min(most_items, most_bytes // item_bytes))
        self._virtual += min(room, self.waiting) / len(self._jobs)
        batch: list[Slice] = []
        while room and (job := self._first()) is not None:
            size = min(job.count - job.taken, room)
            batch.append(Slice(job, job.taken, job.taken + size))
            job.taken += size
            room -= size
            self.waiting -= size
            if job.taken == job.count:
                heapq.heappop(self._jobs)
        return batch

    def clear(self) -> list[Job]:
        """Remove all jobs, and return them."""
        jobs, self._jobs, self.waiting = self._jobs, [], 0
        return [job for _, _, job in jobs]

    def _first(self) -> Job | None:
        """The job whose turn it is; those before it that nobody waits for are dropped."""
        while self._jobs:
            job = self._jobs[0][2]
            if not self._dead(job):
                return job
            heapq.heappop(self._jobs)
        return None

    def _drop_dead(self) -> None:
        alive = [entry for entry in self._jobs if not self._dead(entry[2])]
        if len(alive) < len(self._jobs):
            self._jobs = alive
            heapq.heapify(self._jobs)

    def _dead(self, job: Job) -> bool:
        """Whether nobody waits for a job; it is then counted as dropped."""
        try:
            job.call.check()
        except DuetError as error:
            job.fail(error)
        if not job.future.done():
            return False
        self.waiting += job.taken - job.count
        self._dropped(job)
        return True
