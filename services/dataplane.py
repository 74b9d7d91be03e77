"""The transport-free core that every protocol shares: look up -> cache per item -> batch the misses -> infer -> keep.

The protocols validate, because they know the caller's field names; the inputs of `infer` fit the model.
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

from services.caching.admission import Worth
from services.caching.cache import Cache, Subject
from services.caching.values import Layout
from services.errors import NotReady, UnknownModel
from services.inference import registry
from services.inference.bundle import BundleError, Task, load
from services.inference.cpus import cpu_limit
from services.inference.model import Model, load_model
from services.inference.registry import Entry
from services.inference.scorer import Scorer
from services.scheduling.batcher import Batcher
from services.scheduling.lag import LoopLag
from services.settings import Settings
from services.telemetry import metrics
from services.telemetry.call import Call

log = logging.getLogger("duet")

M = TypeVar("M")
WARM_BATCHES = (1, 2, 8)
MEASURED_RUNS = 5
GC_THRESHOLD = (20_000, 20, 20)  # a request leaves no reference cycles, so a collection every 700 objects is waste
INLINE_SECONDS = 0.001  # a thread hop costs about 0.1 ms, so an operation up to ten of them runs on the event loop
INLINE_BATCH_SECONDS = 0.008  # longest batch on the event loop: probes and new requests wait meanwhile
THREAD_BATCH_SECONDS = 0.1  # longest batch of a slow operation in the compute thread, which all operations share


@dataclass(frozen=True)
class Served:
    """A model with the queue and the cache subject of each of its operations."""

    entry: Entry
    model: Model
    batchers: dict[str, Batcher]
    subjects: dict[str, Subject]


@dataclass(frozen=True)
class Warm:
    """What the warm-up of one operation measured: seconds for one item, and the layout of its outputs in the cache."""

    seconds: float
    layout: Layout


class DataPlane:
    """The models of some tasks, verified and warm, with their queues.

    The constructor lists the bundles in the store, so that a build can record them, but loads nothing.

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
        self._queues: dict[tuple[int, str], tuple[Batcher, Subject]] = {}
        self._cache = Cache()
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
        """Verify, load and warm every model; errors are logged and kept in `problems`, never raised.

        The process stays up and says why it is not ready, instead of crashing in a loop.
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
        try:
            self._cache = Cache.from_settings(self.settings)
        except ValueError as error:  # from the URL; the service answers without Redis
            log.error("DUET_REDIS_URL cannot be used (%s); serving without Redis", error)
            self._cache = Cache.from_settings(self.settings.model_copy(update={"redis_admission": "never"}))
        await self._cache.start()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duet-compute")
        loop = asyncio.get_running_loop()
        for entry in self.entries:
            try:
                model, warm = await loop.run_in_executor(self._executor, self._open, entry)
            except BundleError as error:
                problems.append(str(error))
            else:
                self._served[entry.tag] = await self._serve(entry, model, warm, self._executor)
        for problem in problems:
            log.error("not ready: %s", problem)
        # Everything loaded so far stays until the process ends; frozen, it does not slow down full collections.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        self.problems = problems
        self.loaded = True
        metrics.READY.set(self.ready)

    def drain(self) -> None:
        """Become unready, so that the load balancer sends no more requests; requests are still answered."""
        self.draining = True
        metrics.READY.set(0)

    def _open(self, entry: Entry) -> tuple[Model, dict[str, Warm]]:
        """Verify, load and warm one model; returns it with the measurements of each operation."""
        bundle = load(entry.path)
        if bundle.version != entry.version:
            raise BundleError(f"{entry.path}: holds version {bundle.version}, not {entry.version}; import it again")
        warm: dict[str, Warm] = {}
        try:
            model = load_model(bundle, threads=self.settings.threads or cpu_limit())
            for operation in model.operations:
                if operation in model.untried:
                    passes, outputs = model.untried[operation]
                    warm[operation] = Warm(passes * warm[model.operations[0]].seconds, Layout.of(outputs))
                    continue
                example = model.example(operation)
                for size in WARM_BATCHES:
                    batch = {name: np.repeat(array, size, axis=0) for name, array in example.items()}
                    layout = Layout.of(model.run(operation, batch))
                seconds = min(_seconds(model, operation, example) for _ in range(MEASURED_RUNS))
                warm[operation] = Warm(seconds, layout)
        except BundleError:
            raise
        except KeyError as error:
            raise BundleError(f"{bundle.path}: a bundle for {bundle.manifest.task} needs {error}") from None
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            raise BundleError(
                f"{bundle.path}: a graph does not run on the inputs of {bundle.manifest.task}: {error}"
            ) from error
        return model, warm

    async def _serve(self, entry: Entry, model: Model, warm: dict[str, Warm], executor: Executor) -> Served:
        batchers, subjects = {}, {}
        digest = model.bundle.digest
        for operation, found in warm.items():
            seconds = found.seconds
            inline = seconds <= INLINE_SECONDS
            limit = self.settings.batch_items
            if inline:
                limit = min(limit, int(INLINE_BATCH_SECONDS / seconds))
            elif operation in model.untried:
                limit = min(limit, int(THREAD_BATCH_SECONDS / seconds))
            batchers[operation] = Batcher(
                partial(model.run, operation),
                (entry.name, operation),
                None if inline else executor,
                batch_items=max(1, limit),
                queue_items=self.settings.queue_items,
                batch_bytes=self.settings.batch_bytes,
                item_seconds=seconds,
            )
            await batchers[operation].start()
            measured = partial(getattr, batchers[operation], "item_seconds")
            subjects[operation] = subject = Subject(digest, operation, found.layout, measured)
            self._queues[id(model), operation] = batchers[operation], subject
            metrics.ITEM_SECONDS.labels(entry.name, operation).set_function(measured)
            metrics.REDIS_FROM_ITEMS.labels(entry.name, operation).set_function(partial(self._from_items, subject))
        if isinstance(model, Scorer):
            model.drift.show()
        metrics.MODEL_INFO.labels(entry.name, entry.version, digest, entry.task).set(1)
        ways = ", ".join(f"{operation} {1e6 * found.seconds:.0f} µs" for operation, found in warm.items())
        log.info("serving %s (%s), digest %s; an item takes: %s", entry.tag, entry.task, digest, ways)
        return Served(entry, model, batchers, subjects)

    def _from_items(self, subject: Subject) -> int:
        return self._cache.worth(subject).from_items or 0

    def worth(self, model: Model) -> dict[str, Worth]:
        """What decides whether Redis is asked, for each operation."""
        return {name: self._cache.worth(self._queues[id(model), name][1]) for name in model.operations}

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
            UnknownModel: no such model; the message lists the models that are served.
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
            f"{wanted} for {operation!r} is not served here; served are {', '.join(fitting) or 'none'}", field="model"
        )

    def admit(self, model: Model, call: Call) -> None:
        """Refuse a request before its body is read, if even one item would miss the deadline.

        Raises:
            QueueFull, DeadlineExceeded: see `Batcher.admit`.
        """
        for operation in model.operations:
            batcher, _ = self._queues[id(model), operation]
            if batcher.waiting:
                batcher.admit(1, call.remaining())

    async def infer(
        self, model: Model, operation: str, inputs: dict[str, np.ndarray], call: Call, *, cacheable: bool = True
    ) -> dict[str, np.ndarray]:
        """Outputs for every item of a batch, from the cache where it holds them.

        Args:
            model: one that `select` returned.
            operation: one of its operations.
            inputs: arrays whose first axis is the batch, validated.
            call: the request, for its deadline, cache directives and timings.
            cacheable: False for answers that cannot be requested again (samples without a seed).

        Raises:
            QueueFull, DeadlineExceeded, InferenceFailed: see `Batcher.submit`.
        """
        batcher, subject = self._queues[id(model), operation]
        if not cacheable:
            return await self._compute(batcher, call, inputs, None)
        return await self._cache.answer(subject, inputs, call, partial(self._compute, batcher, call, inputs))

    async def _compute(
        self, batcher: Batcher, call: Call, inputs: dict[str, np.ndarray], rows: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        chosen = inputs if rows is None else {name: array[rows] for name, array in inputs.items()}
        job = await batcher.submit(chosen, deadline=call.deadline, gone=call.gone)
        call.add("queue", job.queue_seconds)
        call.add("compute", job.compute_seconds)
        return job.outputs


def _seconds(model: Model, operation: str, example: Mapping[str, np.ndarray]) -> float:
    begin = time.perf_counter()
    model.run(operation, example)
    return time.perf_counter() - begin
