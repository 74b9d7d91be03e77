"""The transport-free core that every protocol shares: look up -> cache per item -> batch the misses -> infer -> keep.

Validation belongs to the protocols, which know the caller's field names; what reaches `infer` fits the model.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from services.caching.cache import Cache
from services.caching.keys import item_keys
from services.errors import DeadlineExceeded, NotReady, UnknownModel
from services.inference import registry
from services.inference.bundle import BundleError, Task, load
from services.inference.cpus import cpu_limit
from services.inference.model import Model, load_model
from services.inference.registry import Entry
from services.scheduling.batcher import Batcher
from services.scheduling.lag import LoopLag
from services.settings import Settings
from services.telemetry import metrics
from services.telemetry.call import Call

log = logging.getLogger("duet")

M = TypeVar("M")
WARM_BATCHES = (1, 2, 8)
MEASURED_RUNS = 5
GC_THRESHOLD = (20_000, 20, 20)  # a request leaves no cycles behind, so looking for them every 700 objects is waste
INLINE_SECONDS = 0.001  # a thread hop costs about 0.1 ms, so a model under ten of them runs on the event loop ...
INLINE_BATCH_SECONDS = 0.008  # ... in batches that do not hold up probes and new requests for longer than this


@dataclass(frozen=True)
class Served:
    """A model with its queues."""

    entry: Entry
    model: Model
    batchers: dict[str, Batcher]


class DataPlane:
    """The models of some tasks, verified, warm and queued for.

    Creating one reads which bundles the store holds, so that a build can record them, but loads nothing.

    Args:
        tasks: the tasks to serve.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.settings = Settings()
        self.problems: list[str] = ["starting: models are being verified and warmed"]
        self.draining = False
        self.loaded = False
        self.lag = LoopLag()
        self._watch: asyncio.Task[None] | None = None
        self.entries: list[Entry] = []
        self._unresolved = ""
        try:
            self.entries = registry.resolve(self.settings.models, self.tasks)
        except BundleError as error:
            self._unresolved = str(error)
        self._served: dict[str, Served] = {}
        self._batchers: dict[tuple[int, str], Batcher] = {}
        self._cache = Cache((), value_bytes=0)
        self._executor: ThreadPoolExecutor | None = None

    @property
    def ready(self) -> bool:
        return not self.problems and not self.draining

    @property
    def served(self) -> list[Served]:
        """The loaded models, by tag."""
        return list(self._served.values())

    def check(self) -> None:
        """Raise `NotReady`, with the reasons, unless every model is verified and warm."""
        if self.problems:
            raise NotReady("; ".join(self.problems), retry_after=1.0)

    async def start(self) -> None:
        """Verify, load and warm every model; what goes wrong is logged and kept in `problems`, never raised.

        A process that stays up and says why it is not ready helps more than one that crashes in a loop.
        """
        try:
            await self._start()
        except Exception as error:
            log.exception("start-up failed")
            self.problems = [f"start-up failed: {type(error).__name__}: {error}"]

    async def _start(self) -> None:
        problems = [self._unresolved] if self._unresolved else []
        for task in self.tasks:
            if not self._unresolved and not any(entry.task == task for entry in self.entries):
                problems.append(f"no {task} model in the store: run `duet train` or `duet models import`")
        self._watch = asyncio.create_task(self.lag.watch())
        self._cache = Cache.from_settings(self.settings)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duet-compute")
        loop = asyncio.get_running_loop()
        for entry in self.entries:
            try:
                model, costs = await loop.run_in_executor(self._executor, self._open, entry)
            except BundleError as error:
                problems.append(str(error))
            else:
                self._served[entry.tag] = await self._serve(entry, model, costs, self._executor)
        for problem in problems:
            log.error("not ready: %s", problem)
        # What is loaded by now stays for good: without it, a full collection has little to walk through.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        self.problems = problems
        self.loaded = True
        metrics.READY.set(self.ready)

    def drain(self) -> None:
        """Turn unready, so that nobody sends more, and go on answering what comes all the same."""
        self.draining = True
        metrics.READY.set(0)

    def _open(self, entry: Entry) -> tuple[Model, dict[str, float]]:
        """Verify, load and warm one model; returns it with the seconds an item of each operation takes."""
        bundle = load(entry.path)
        if bundle.version != entry.version:
            raise BundleError(f"{entry.path}: holds version {bundle.version}, not {entry.version}; import it again")
        costs = {}
        try:
            model = load_model(bundle, threads=self.settings.threads or cpu_limit())
            for operation in model.operations:
                example = model.example(operation)
                for size in WARM_BATCHES:
                    model.run(operation, {name: np.repeat(array, size, axis=0) for name, array in example.items()})
                costs[operation] = min(_seconds(model, operation, example) for _ in range(MEASURED_RUNS))
        except BundleError:
            raise
        except KeyError as error:
            raise BundleError(f"{bundle.path}: a bundle for {bundle.manifest.task} needs {error}") from None
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            raise BundleError(
                f"{bundle.path}: a graph does not run on the inputs of {bundle.manifest.task}: {error}"
            ) from error
        return model, costs

    async def _serve(self, entry: Entry, model: Model, costs: dict[str, float], executor: Executor) -> Served:
        batchers = {}
        for operation, seconds in costs.items():
            inline = seconds <= INLINE_SECONDS
            limit = self.settings.batch_items
            batchers[operation] = Batcher(
                partial(model.run, operation),
                (entry.name, operation),
                None if inline else executor,
                batch_items=max(1, min(limit, int(INLINE_BATCH_SECONDS / seconds))) if inline else limit,
                queue_items=self.settings.queue_items,
                batch_bytes=self.settings.batch_bytes,
                item_seconds=seconds,
            )
            await batchers[operation].start()
            self._batchers[id(model), operation] = batchers[operation]
            metrics.ITEM_SECONDS.labels(entry.name, operation).set(seconds)
        digest = model.bundle.digest
        metrics.MODEL_INFO.labels(entry.name, entry.version, digest, entry.task).set(1)
        ways = ", ".join(f"{operation} {1e6 * seconds:.0f} µs" for operation, seconds in costs.items())
        log.info("serving %s (%s), digest %s; an item takes: %s", entry.tag, entry.task, digest, ways)
        return Served(entry, model, batchers)

    async def stop(self) -> None:
        self.problems = ["stopping"]
        for served in self._served.values():
            for batcher in served.batchers.values():
                await batcher.stop()
        if self._executor is not None:
            self._executor.shutdown()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._cache.close()

    def select(self, kind: type[M], operation: str, name: str | None) -> M:
        """The model `NAME` or `NAME:VERSION`; without a name the first (by name) that offers `operation`.

        Raises:
            NotReady: models are not loaded, or did not verify.
            UnknownModel: no such model; the message lists those there are.
        """
        self.check()
        fitting = {
            tag: served.model
            for tag, served in self._served.items()
            if isinstance(served.model, kind) and operation in served.batchers
        }
        for tag, model in fitting.items():
            if name is None or name in (tag, tag.partition(":")[0]):
                return model
        wanted = f"model {name[:80]!r}" if name else "a model"
        raise UnknownModel(
            f"{wanted} for {operation!r} is not served here; there is {', '.join(fitting) or 'none'}", field="model"
        )

    def admit(self, model: Model, call: Call) -> None:
        """Refuse a request before its body is read, where even one item would come too late.

        Raises:
            QueueFull, DeadlineExceeded: see `Batcher.admit`.
        """
        for operation in model.operations:
            batcher = self._batchers[id(model), operation]
            if batcher.waiting:
                batcher.admit(1, call.remaining())

    async def infer(
        self, model: Model, operation: str, inputs: dict[str, np.ndarray], call: Call, *, cacheable: bool = True
    ) -> dict[str, np.ndarray]:
        """Outputs for every item of a batch, from the cache where it knows them.

        Args:
            model: one that `select` returned.
            operation: one of its operations.
            inputs: arrays whose first axis is the batch, validated.
            call: the request, for its deadline, cache wishes and timings.
            cacheable: False for answers that nobody will ask for again (unseeded samples).

        Raises:
            QueueFull, DeadlineExceeded, InferenceFailed: see `Batcher.submit`.
        """
        batcher = self._batchers[id(model), operation]
        if not (cacheable and self._cache.holds_anything and (call.read_cache or call.write_cache)):
            return await self._compute(batcher, inputs, call)
        count = len(next(iter(inputs.values())))
        with call.stage("cache"):
            keys = item_keys(model.bundle.digest, operation, inputs, count)
            found = await self._cache.get(keys) if call.read_cache else {}
        if call.read_cache:
            call.lookups += count
            call.hits += sum(key in found for key in keys)
        first_row = {key: row for row, key in reversed(list(enumerate(keys))) if key not in found}
        if first_row:
            # Equal items of one request are computed once.
            rows = np.fromiter(first_row.values(), np.intp)
            computed = await self._compute(batcher, {name: array[rows] for name, array in inputs.items()}, call)
            fresh = {key: {name: array[i] for name, array in computed.items()} for i, key in enumerate(first_row)}
            if call.write_cache:
                with call.stage("cache"):
                    await self._cache.put(fresh)
            found |= fresh
        elif (remaining := call.remaining()) is not None and remaining <= 0:
            raise DeadlineExceeded("no answer was ready in time", field="X-Request-Timeout-Ms")
        items = [found[key] for key in keys]
        if count == 1:
            return {name: array[None].copy() for name, array in items[0].items()}
        return {name: np.stack([item[name] for item in items]) for name in items[0]}

    async def _compute(self, batcher: Batcher, inputs: dict[str, np.ndarray], call: Call) -> dict[str, np.ndarray]:
        job = await batcher.submit(inputs, deadline=call.deadline, gone=call.gone)
        call.add("queue", job.queue_seconds)
        call.add("compute", job.compute_seconds)
        return job.outputs


def _seconds(model: Model, operation: str, example: Mapping[str, np.ndarray]) -> float:
    begin = time.perf_counter()
    model.run(operation, example)
    return time.perf_counter() - begin
