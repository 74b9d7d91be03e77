"""The jobs that wait for one operation, by weighted fair queueing (Demers, Keshav, Shenker 1989).

A job of one item does not wait for all items of a job of a thousand, and equal jobs are served in order of arrival.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from services.errors import DuetError
from services.scheduling.job import Job, Slice


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
        self._drop_dead()
        if not self._jobs:
            return []
        first = self._jobs[0][2]  # all items of an operation have about the same size
        item_bytes = max(1, sum([array.nbytes for array in first.inputs.values()]) // first.count)
        room = max(1, min(most_items, most_bytes // item_bytes))
        self._virtual += min(room, self.waiting) / len(self._jobs)
        batch: list[Slice] = []
        while room and self._jobs:
            job = self._jobs[0][2]
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

    def _drop_dead(self) -> None:
        alive = []
        for entry in self._jobs:
            job = entry[2]
            try:
                job.call.check()
            except DuetError as error:
                job.fail(error)
            if job.future.done():
                self.waiting += job.taken - job.count
                self._dropped(job)
            else:
                alive.append(entry)
        if len(alive) < len(self._jobs):
            self._jobs = alive
            heapq.heapify(self._jobs)
