"""A replica on a virtual clock: the services' own cache, admission and batcher; HTTP and the model are charged for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from loadtests.capacity.costs import Costs
from loadtests.capacity.loop import VirtualLoop
from services.caching.cache import Cache
from services.caching.values import Layout
from services.eager import start
from services.errors import DeadlineExceeded, QueueFull
from services.inference.registry import Entry
from services.protocol.headers import call_from_headers
from services.scheduling.lag import LoopLag
from services.served import Served, Warm, serve
from services.settings import Settings
from services.telemetry import metrics

OPERATION = "classify"
PRELOADED = 0  # the image that is in the cache from the start


@dataclass(frozen=True)
class Record:
    """What became of requests, one entry each: seconds of virtual time; status 0: it was lost with its replica."""

    due: np.ndarray
    received: np.ndarray
    status: np.ndarray

    @property
    def latency(self) -> np.ndarray:
        """Seconds from due to received of what was answered with 200."""
        good: np.ndarray = (self.received - self.due)[self.status == 200]
        return good

    @property
    def refused(self) -> float:
        """The share that was not answered with 200."""
        return float((self.status != 200).mean()) if len(self.status) else 0.0

    def percentile(self, percent: float) -> float:
        """Seconds; 0 where nothing was answered."""
        good = self.latency
        return float(np.percentile(good, percent)) if len(good) else 0.0

    @staticmethod
    def of(entries: Sequence[tuple[float, float, int]]) -> Record:
        columns = np.array(entries, float).reshape(-1, 3).T
        return Record(columns[0], columns[1], columns[2].astype(int))

    def between(self, begin: float, end: float) -> Record:
        """Of those that were due in that time."""
        chosen = (self.due >= begin) & (self.due < end)
        return Record(self.due[chosen], self.received[chosen], self.status[chosen])


class Pod:
    """One replica.

    Args:
        costs: measured times.
        deadline: seconds that clients wait (`X-Request-Timeout-Ms`); None: as the settings say.
        cached: whether requests use the cache.
        proxied: whether a proxy works on the same core.
        speed: of the core, in multiples of the one that was measured.

    Attributes:
        entries: due, received, status of each request that has ended.
        asked: requests that were sent here.
    """

    def __init__(
        self,
        costs: Costs,
        *,
        deadline: float | None = None,
        cached: bool = False,
        proxied: bool = False,
        speed: float = 1.0,
    ) -> None:
        self.loop = VirtualLoop()
        self.entries: list[tuple[float, float, int]] = []
        self.asked = 0
        self._costs = costs
        self._slow = 1 / speed
        self._computed = costs.miss if cached else costs.request
        self._least = min(costs.hit, costs.refusal, self._computed)
        self._proxy = costs.proxy if proxied else 0.0
        self._settings = Settings()
        self._headers = {} if cached else {b"cache-control": b"no-store"}
        if deadline is not None:
            self._headers[b"x-request-timeout-ms"] = b"%g" % (1000 * deadline)
        self._tasks: set[Any] = set()
        self._lag = LoopLag()
        self._open = 0
        self._turn = 0  # of the loop, in which a request was last read
        self.served = self._serve()
        self.loop.complete(self._begin(cached))

    def _serve(self) -> Served[Any]:
        costs = self._costs
        layout = Layout([("probabilities", np.dtype(np.uint8), (costs.value_bytes,))])
        model = SimpleNamespace(
            run=self._compute, estimated_operations={}, bundle=SimpleNamespace(digest="0" * 64), operations=[OPERATION]
        )
        self._rows = np.zeros((self._settings.batch_items + costs.items, costs.value_bytes), np.uint8)
        warm = {OPERATION: Warm(costs.item * self._slow, layout, costs.batched * self._slow, costs.gains)}
        entry = Entry("simulated", "0", "classification", Path())
        thread = cast("Any", self)  # the loop has the thread
        return serve(entry, cast("Any", model), warm, thread, Cache.from_settings(self._settings), self._settings)

    async def _begin(self, cached: bool) -> None:
        await self.served.start()
        if cached:
            await self._infer(self._images(PRELOADED))
        self.watch = self.loop.create_task(self._lag.watch())

    def _images(self, request: int) -> np.ndarray:
        """The images of the requests with this number, int64 [N,1]: stand-ins that are as different as images."""
        return (request * self._costs.items + np.arange(self._costs.items))[:, None]

    async def _infer(self, images: np.ndarray) -> bool:
        """Whether the cache had all of them."""
        call = call_from_headers(self._headers, self._settings, self._lag.seconds)
        await self.served.infer(OPERATION, {"images": images}, call)
        return 0 < call.lookups == call.hits

    def _compute(self, operation: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        size = len(inputs["images"])
        self.loop.charge(self._costs.batch(size) * self._slow)
        return {"probabilities": self._rows[:size]}

    def ask(self, due: float, image: int = PRELOADED) -> None:
        """A request is sent at that time; those with the same `image` are equal; calls come in order of time."""
        self.asked += 1
        self._open += 1
        arrival = due + self._costs.network / 2
        self.loop.arrive(arrival, lambda: self._read(due, arrival, image))

    def _read(self, due: float, arrival: float, image: int) -> None:
        metrics.BEGUN.count += 1  # as the gateway does; requests to other simulated replicas count here, too
        if self.loop.turns != self._turn:
            self._turn = self.loop.turns
            slept = self.loop.now <= arrival + 1e-9  # else something kept it
            self.loop.charge((self._costs.turn + (self._costs.wake if slept else 0.0)) * self._slow)
        start(self._respond(image), lambda status: self._answer(due, status), self._tasks)

    async def _respond(self, image: int) -> int:
        costs = self._costs
        self.loop.charge((self._proxy + self._least) * self._slow)
        try:
            hit = await self._infer(self._images(image))
        except QueueFull:
            status, total = 429, costs.refusal
        except DeadlineExceeded:
            status, total = 504, costs.refusal
        else:
            status, total = 200, costs.hit if hit else self._computed
        self.loop.charge((total - self._least) * self._slow)
        return status

    def _answer(self, due: float, status: int) -> None:
        self._open -= 1
        self.entries.append((due, self.loop.now + self._costs.network / 2, status))

    def run(self, end: float = math.inf) -> None:
        """Let time pass until `end`, or until every request has its answer."""
        if end < math.inf:
            self.loop.run_until(end)
        while end == math.inf and self._open:
            self.loop.step()

    def kill(self) -> int:
        """The process is gone; returns how many requests are lost with it."""
        lost = self._open
        self.loop.drop_arrivals()
        self._open = 0
        return lost

    @property
    def backlog(self) -> float:
        """Seconds of work that wait: `duet_queue_items` times `duet_item_seconds`, as KEDA sees them."""
        batcher = self.served.batchers[OPERATION]
        return batcher.waiting * batcher.item_seconds

    @property
    def open(self) -> int:
        """Requests without an answer."""
        return self._open

    @property
    def record(self) -> Record:
        return Record.of(self.entries)
