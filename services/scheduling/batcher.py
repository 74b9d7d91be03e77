"""The micro-batcher of one model operation.

A bounded queue with one owner task. When the model is free, all waiting items form a batch, up to a limit in items and
in bytes: there is no artificial delay, and a request that comes alone is computed at once. A request that would miss
its deadline is refused at once. Requests whose caller left or whose deadline passed are dropped before compute. Input
is validated before it is queued. If a batch fails nevertheless, its items run one by one, and only requests with a
failing item get an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np

from services.call import TIMEOUT, Call, late
from services.errors import DeadlineExceeded, InferenceFailed, NotReady, QueueFull
from services.scheduling.job import Arrays, Job, Slice, join
from services.scheduling.notes import Notes
from services.scheduling.queue import FairQueue
from services.scheduling.room import Room
from services.telemetry import metrics
from services.telemetry.trace import of_monotonic

log = logging.getLogger("duet.batcher")

LISTED = 8  # request ids in one log line, at most
MOST_GROWTH = 5  # times the running mean, that one batch counts at most
Run = Callable[[Mapping[str, np.ndarray]], Arrays]


class Batcher:
    """Batches one operation of one model.

    Args:
        run: computes one batch, one call at a time.
        labels: model, version and operation, for metrics.
        executor: where `run` runs, so that the event loop stays free; None: always on the event loop.
        batch_items: most items in a batch.
        alone_items: most items in a batch on the event loop while no other requests come, if more than `batch_items`.
        queue_items: most items that may wait.
        batch_bytes: most bytes of inputs in a batch (one item is always allowed).
        item_seconds: compute time of an item, measured at warm-up; the running mean starts from it.
        inline_seconds: a batch that takes at most so long runs on the event loop, because handing it to a thread and
        back takes about 0.1 ms.
        digest: of the model's bundle, for traces.

    Attributes:
        item_seconds: seconds that one more item takes, as a running mean.
    """

    def __init__(
        self,
        run: Run,
        labels: tuple[str, str, str],
        executor: Executor | None,
        *,
        batch_items: int,
        alone_items: int = 0,
        queue_items: int,
        batch_bytes: int = 2**31,
        item_seconds: float = 0.0,
        inline_seconds: float = 0.0,
        digest: str = "",
    ) -> None:
        self._run = run
        self._executor = executor
        self._room = Room(batch_items, alone_items)
        self._batch_bytes = batch_bytes
        self._queue_items = queue_items
        self._queue = FairQueue(self._count_lost)
        self._batch: list[Slice] = []
        self._wake = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._model = labels[0]
        self._notes = Notes((labels[0], labels[1], digest, labels[2]))
        metrics.QUEUE_ITEMS.labels(*labels).set_function(lambda: self.waiting)
        self._sizes = metrics.BATCH_ITEMS.labels(*labels)
        self._waits = metrics.QUEUE_SECONDS.labels(self._model, "served")
        self._waits_refused = metrics.QUEUE_SECONDS.labels(self._model, "refused")
        self.item_seconds = item_seconds
        # By the time at warm-up: the running mean grows while other work takes the processor.
        self._inline_items = int(inline_seconds / item_seconds) if item_seconds else 0
        self._timed = executor is not None and (not inline_seconds or item_seconds > inline_seconds)
        self._always_inline = executor is None or batch_items <= self._inline_items
        self._busy_since: float | None = None
        self._computing = 0
        self._alone = True  # the last batch was of one request
        self._stepped = False  # a request has been computed at once in this step of the event loop

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._queue.waiting

    async def start(self) -> None:
        self._owner = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop computing; requests that still wait get `NotReady`."""
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)

    async def submit(self, inputs: Arrays, call: Call) -> Job:
        """Compute `inputs` (first axis: items); the answer is the job's `outputs`.

        Args:
            inputs: arrays whose first axis is the items.
            call: the request; whether its client has left is asked just before compute.

        Raises:
            CallerLeft: the client left before compute.
            QueueFull: the queue is full, or the answer would miss the deadline; it says when to retry.
            DeadlineExceeded: the deadline passed first.
            InferenceFailed: the model failed on one of these items.
            NotReady: the batcher does not run, or stopped before the answer.
        """
        count = len(next(iter(inputs.values())))
        if not count:
            raise ValueError("a batch needs at least one item")
        if self._owner is None or self._owner.done():
            raise NotReady(f"{self._model} is stopped", retry_after=1.0)
        now = time.monotonic()
        deadline = call.deadline
        try:
            self.admit(count, None if deadline is None else deadline - now)
        except DeadlineExceeded:
            metrics.ABANDONED.labels(self._model, "deadline").inc(count)
            raise
        loop = asyncio.get_running_loop()
        job = Job(inputs, count, call, loop.create_future(), now)
        # Short batches need no timer: between batches expired jobs are dropped anyway.
        if deadline is not None and self._timed:
            job.timer = loop.call_later(deadline - now, job.expire)
        self._queue.push(job)
        self._wake.set()
        try:
            await job.future
        except BaseException:
            self._end(job)
            del job  # the error refers to this frame: the two would keep the inputs until a garbage collection
            raise
        self._end(job)
        return job

    @staticmethod
    def _end(job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job.call.trace is not None and not job.taken:  # nobody computed it
            job.call.trace.stage("queue", of_monotonic(job.enqueued), time.perf_counter())

    def compute_now(self, inputs: Arrays, call: Call) -> Arrays | None:
        """The outputs, computed without the queue; None if the items have to be queued.

        That is faster while requests come one by one. When a second one comes in the same step of the event loop, it
        and those after it are queued, until a batch has one request again.
        """
        count = len(next(iter(inputs.values())))
        self._room.came(count)
        if not self._alone or self.waiting or self._computing or self._owner is None or self._owner.done():
            return None
        if self._stepped:
            self._alone = False
        begin = time.monotonic()
        room = self._room.items(begin)
        most = room if room > self._room.shared else self._inline_items
        if self._stepped or count > most or call.expired or (call.gone is not None and call.gone()):
            return None
        self._stepped = True
        asyncio.get_running_loop().call_soon(self._step)
        try:
            outputs = self._checked(self._run(inputs), count)
        except Exception:
            message = "%s failed on %d items of request %s; queueing them"
            log.exception(message, self._model, count, call.id, extra=call.log_fields)
            return None
        seconds = time.monotonic() - begin
        if call.trace is not None:
            self._notes.alone(call, count, begin, begin + seconds)
        self._sizes.observe(count)
        self._waits.observe(0.0)
        self._learn(seconds / count)
        call.add("queue", 0.0)
        call.add("compute", seconds)
        return outputs

    def _step(self) -> None:
        self._stepped = False

    def admit(self, count: int, remaining: float | None) -> None:
        """Refuse at once a request that would miss its deadline, so that the caller can try another replica.

        Args:
            count: items to be computed.
            remaining: seconds until the deadline, None without one.

        Raises:
            QueueFull, DeadlineExceeded: as `submit`.
        """
        waiting = self._queue.waiting
        if remaining is not None and remaining <= 0:
            self._waits_refused.observe(waiting * self.item_seconds)
            raise late("the items were not queued")
        if waiting and waiting + count > self._queue_items:
            drain = waiting * self.item_seconds
            self._waits_refused.observe(drain)
            message = f"{waiting} items wait for {self._model}, and the limit is {self._queue_items}; retry later"
            raise QueueFull(message, retry_after=max(1.0, drain))
        if remaining is None or (waiting + self._computing + count) * self.item_seconds <= remaining:
            return
        ahead = self._queue.ahead_of(count) + self._computing
        if waiting and (ahead + count) * self.item_seconds > remaining:
            drain = waiting * self.item_seconds
            self._waits_refused.observe(ahead * self.item_seconds)
            raise QueueFull(
                f"{waiting} items wait for {self._model}, which takes about {1000 * drain:.0f} ms, "
                f"but the deadline is in {1000 * remaining:.0f} ms; retry later, or allow more time",
                retry_after=max(1.0, drain),
                field=TIMEOUT,
            )

    async def _work(self) -> None:
        try:
            while True:
                self._batch = self._queue.take(self._room.items(time.monotonic()), self._batch_bytes)
                if self._batch:
                    await self._compute(self._batch)
                    if self._always_inline:
                        await asyncio.sleep(0)  # send answers and read requests between two batches
                else:
                    self._busy_since = None  # all waiting jobs were dropped: a pause is not the pace of the model
                    self._wake.clear()
                    await self._wake.wait()
        finally:  # every waiting request gets an answer, however the task ends
            for job in [*self._queue.clear(), *(part.job for part in self._batch)]:
                job.fail(NotReady(f"{self._model} is stopped", retry_after=1.0))

    async def _compute(self, batch: list[Slice]) -> None:
        size = sum(part.stop - part.start for part in batch)
        self._alone = len(batch) == 1
        begin = time.monotonic()
        self._computing = size
        try:
            outputs = await self._infer(join(batch), size)
        except Exception as error:
            self._notes.batch(batch, begin, time.monotonic(), type(error).__name__)
            requests = ", ".join(part.job.call.id for part in batch[:LISTED])
            message = "%s failed on a batch of %d items of %d requests (%s); running them one by one"
            log.exception(message, self._model, size, len(batch), requests)
            await self._isolate(batch)
            self._count_last(batch)
            return
        finally:
            self._computing = 0
        end = time.monotonic()
        seconds = end - begin
        self._sizes.observe(size)
        # While jobs wait, the time from batch to batch counts: sending answers and refusals takes time too.
        self._learn((end - (self._busy_since or begin)) / size)
        self._busy_since = end if self._queue else None
        self._notes.batch(batch, begin, end)
        self._deliver(batch, outputs, begin, seconds)
        self._count_last(batch)

    def _learn(self, pace: float) -> None:
        if self.item_seconds:  # a process that was suspended during a batch must not refuse requests afterwards
            pace = min(pace, MOST_GROWTH * self.item_seconds)
        self.item_seconds = 0.9 * self.item_seconds + 0.1 * pace

    def _count_last(self, batch: list[Slice]) -> None:
        for part in batch:
            if part.stop == part.job.count:  # no longer in the queue, so it was not dropped and counted there
                self._count_lost(part.job)

    def _count_lost(self, job: Job) -> None:
        if (reason := job.abandon_reason) is not None:
            if not job.taken:
                waited = time.monotonic() - job.enqueued
                metrics.QUEUE_SECONDS.labels(self._model, "dropped").observe(waited)
            metrics.ABANDONED.labels(self._model, reason).inc(job.count - job.done)
            metrics.WASTED.labels(self._model, reason).inc(job.done)

    def _deliver(self, batch: list[Slice], outputs: Arrays, begin: float, seconds: float) -> None:
        offset = 0
        for part in batch:
            size = part.stop - part.start
            if part.start == 0:
                part.job.queue_seconds = begin - part.job.enqueued
                self._waits.observe(part.job.queue_seconds)
            part.job.compute_seconds += seconds
            part.job.keep(part.start, {name: array[offset : offset + size] for name, array in outputs.items()})
            offset += size

    async def _infer(self, inputs: Arrays, size: int) -> Arrays:
        if self._always_inline or size <= self._inline_items:
            outputs = self._run(inputs)
        else:
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, inputs)
        return self._checked(outputs, size)

    @staticmethod
    def _checked(outputs: Arrays, size: int) -> Arrays:
        if any(len(array) != size for array in outputs.values()):
            raise ValueError(f"the model got {size} items, but its outputs have another number of rows")
        return outputs

    async def _isolate(self, batch: list[Slice]) -> None:
        for part in batch:
            for row in range(part.start, part.stop):
                if part.job.future.done():
                    break
                begin = time.monotonic()
                try:
                    outputs = await self._infer(part.job.rows(row, row + 1), 1)
                except Exception as error:  # the batch has one item, so that item causes the error
                    self._notes.alone(part.job.call, 1, begin, time.monotonic(), type(error).__name__)
                    failure = InferenceFailed(f"{self._model} failed on item {row}: {type(error).__name__}")
                    part.job.fail(failure)
                    break
                end = time.monotonic()
                self._notes.alone(part.job.call, 1, begin, end)
                self._deliver([Slice(part.job, row, row + 1)], outputs, begin, end - begin)
