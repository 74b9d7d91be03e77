"""One model that is served: verified, warm, with a queue and a cache entry for each of its operations."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from services.caching.admission import AdmissionEstimate
from services.caching.cache import Cache, CachedOperation, Compute
from services.caching.values import Layout
from services.call import Call
from services.inference.bundle import Bundle, BundleError
from services.inference.cpus import cpu_limit
from services.inference.model import Model, load_model
from services.inference.registry import Entry, verified
from services.inference.store import reading
from services.scheduling.batcher import Batcher
from services.settings import Settings
from services.telemetry import metrics

log = logging.getLogger("duet")

M_co = TypeVar("M_co", bound=Model, covariant=True)
Arrays = dict[str, np.ndarray]

FIRST_RUNS = 2  # after the very first, which allocates; they tell slow operations, whose exact time decides nothing
WARM_BATCHES = (2, 8)
LARGE_BATCH = 64
GAIN = 0.97  # share of the time of small batches that a large one takes at most, to be worth a thread
MEASURED_RUNS = 5
BATCH_RUNS = 3
SMALLEST_LIMIT = 4  # items: a few images of one request are computed together, on every replica
INLINE_SECONDS = 0.001  # a thread hop costs about 0.1 ms, so a batch up to ten of them runs on the event loop
FAST_BATCH_SECONDS = 0.008  # longest batch of an operation whose items are that fast
THREAD_BATCH_SECONDS = 0.1  # longest batch of a slow operation in the compute thread, which all operations share


@dataclass(frozen=True)
class Warm:
    """What the warm-up of one operation measured.

    Attributes:
        seconds: for one item alone.
        layout: of its outputs in the cache.
        batched: seconds for one more item of a batch.
        gains: whether a large batch takes less time than several that are small enough for the event loop.
    """

    seconds: float
    layout: Layout
    batched: float
    gains: bool = True


@dataclass(frozen=True)
class Served(Generic[M_co]):
    """A model and the way to its answers.

    Attributes:
        entry: its name and version in the store.
        model: what computes.
        batchers: the queue of each operation.
        subjects: what the cache knows of each operation.
        cache: shared by all models.
    """

    entry: Entry
    model: M_co
    batchers: Mapping[str, Batcher]
    subjects: Mapping[str, CachedOperation]
    cache: Cache

    async def start(self) -> None:
        for batcher in self.batchers.values():
            await batcher.start()

    async def stop(self) -> None:
        for batcher in self.batchers.values():
            await batcher.stop()

    def admit(self, operation: str, count: int, call: Call) -> None:
        """Refuse a request before its images are decoded, if its items would miss the deadline.

        Raises:
            QueueFull, DeadlineExceeded: see `Batcher.admit`.
        """
        if self.batchers[operation].waiting:
            self.batchers[operation].admit(count, call.remaining())

    async def infer(self, operation: str, inputs: Arrays, call: Call, *, cacheable: bool = True) -> Arrays:
        """Outputs for every item of a batch, from the cache where it holds them.

        Args:
            operation: one of the model's.
            inputs: arrays whose first axis is the batch, validated.
            call: the request, for its deadline, cache directives and timings.
            cacheable: False for answers that cannot be requested again (samples without a seed).

        Raises:
            QueueFull, DeadlineExceeded, InferenceFailed: see `Batcher.submit`.
        """
        compute = partial(self._compute, self.batchers[operation], call, inputs)
        if not cacheable:
            return await compute(None)
        return await self.cache.answer(self.subjects[operation], inputs, call, compute)

    async def remember(self, name: str, like: str, passes: int, inputs: Arrays, call: Call, compute: Compute) -> Arrays:
        """What `compute` makes of rows of `inputs`, from the cache where it holds them.

        Args:
            name: of what is computed, for the key.
            like: an operation whose outputs have the same layout.
            passes: how often an item runs that operation, about.
            inputs: arrays whose first axis is the items; everything that the answer depends on.
            call: the request.
            compute: computes the given rows, None: all of them.
        """
        known = self.subjects[like]
        subject = CachedOperation(known.digest, name, known.layout, lambda: passes * known.item_seconds())
        return await self.cache.answer(subject, inputs, call, compute)

    async def _compute(self, batcher: Batcher, call: Call, inputs: Arrays, rows: np.ndarray | None) -> Arrays:
        chosen = inputs if rows is None else {name: array[rows] for name, array in inputs.items()}
        outputs = batcher.compute_now(chosen, call)
        if outputs is not None:
            return outputs
        job = await batcher.submit(chosen, call)
        call.add("queue", job.queue_seconds)
        call.add("compute", job.compute_seconds)
        return job.outputs

    def estimates(self) -> dict[str, AdmissionEstimate]:
        """What decides whether Redis is asked, for each operation."""
        return {name: self.cache.estimate(subject) for name, subject in self.subjects.items()}


def open_model(entry: Entry, settings: Settings) -> Model:
    """Verify and load one model. Several threads may do so at once.

    Raises:
        BundleError: the bundle does not verify, no trusted key signed it, or its graphs do not load.
    """
    with reading():
        bundle = verified(entry)
        if settings.trusted_keys:
            _check_signature(bundle, settings.trusted_keys)
        with _blaming(bundle):
            return load_model(bundle, threads=settings.threads or cpu_limit())


def _check_signature(bundle: Bundle, trusted: str) -> None:
    from services.inference import keys, signature  # noqa: PLC0415 (12 MB, for those who ask for signatures)

    by = signature.check(bundle, keys.public_keys(trusted, "DUET_TRUSTED_KEYS"))
    log.info("%s:%s is signed by the key %s", bundle.name, bundle.version, by)


def warm_up(model: Model) -> dict[str, Warm]:
    """Run each operation and measure it; nothing else should run meanwhile.

    Raises:
        BundleError: a graph does not run.
    """
    warm: dict[str, Warm] = {}
    with _blaming(model.bundle):
        for operation in model.operations:
            if operation in model.estimated_operations:
                passes, outputs = model.estimated_operations[operation]
                seconds = passes * warm[model.operations[0]].seconds
                warm[operation] = Warm(seconds, Layout.of(outputs), seconds)
                continue
            example = model.example(operation)
            layout = Layout.of(model.run(operation, example))
            batched = seconds = min(_seconds(model, operation, example) for _ in range(FIRST_RUNS))
            gains = True
            if seconds <= 2 * INLINE_SECONDS:  # it may run on the event loop, which more and larger runs decide
                paces = [_pace(model, operation, example, size) for size in WARM_BATCHES]
                seconds = min(_seconds(model, operation, example) for _ in range(MEASURED_RUNS))
                batched = min(seconds, *paces)
                if seconds * SMALLEST_LIMIT <= INLINE_SECONDS:  # else small batches are too small in any case
                    gains = _pace(model, operation, example, LARGE_BATCH) < GAIN * paces[-1]
            warm[operation] = Warm(seconds, layout, batched, gains)
    return warm


@contextmanager
def _blaming(bundle: Bundle) -> Iterator[None]:
    """Whatever a graph raises in this block is a `BundleError` of this bundle."""
    try:
        yield
    except BundleError:
        raise
    except KeyError as error:
        raise BundleError(f"{bundle.path}: a bundle for {bundle.manifest.task} needs {error}") from None
    except Exception as error:  # ONNX Runtime raises many types, none of them public
        raise BundleError(
            f"{bundle.path}: a graph does not run on the inputs of {bundle.manifest.task}: {error}"
        ) from error


def serve(
    entry: Entry, model: Model, warm: Mapping[str, Warm], executor: Executor, cache: Cache, settings: Settings
) -> Served[Model]:
    """The handle of an open model, with its metrics; slow operations run in `executor`."""
    batchers, subjects = {}, {}
    for operation, found in warm.items():
        limit, alone = settings.batch_items, 0
        if found.seconds <= INLINE_SECONDS:
            limit = alone = min(limit, int(FAST_BATCH_SECONDS / found.batched))
            if not found.gains:
                limit = min(limit, int(INLINE_SECONDS / found.seconds))
        elif operation in model.estimated_operations:
            limit = min(limit, int(THREAD_BATCH_SECONDS / found.seconds))
        labels = (entry.name, entry.version, operation)
        batchers[operation] = batcher = Batcher(
            partial(model.run, operation),
            labels,
            executor,
            batch_items=max(1, limit),
            alone_items=alone,
            queue_items=settings.queue_items,
            batch_bytes=settings.batch_bytes,
            item_seconds=found.seconds,
            inline_seconds=INLINE_SECONDS,
        )
        measured = partial(getattr, batcher, "item_seconds")
        subjects[operation] = subject = CachedOperation(model.bundle.digest, operation, found.layout, measured)
        metrics.ITEM_SECONDS.labels(*labels).set_function(measured)
        metrics.REDIS_FROM_ITEMS.labels(*labels).set_function(partial(_from_items, cache, subject))
    metrics.MODEL_INFO.labels(entry.name, entry.version, model.bundle.digest, entry.task).set(1)
    return Served(entry, model, batchers, subjects, cache)


def _from_items(cache: Cache, subject: CachedOperation) -> int:
    return cache.estimate(subject).from_items or 0


def _seconds(model: Model, operation: str, example: Arrays) -> float:
    begin = time.perf_counter()
    model.run(operation, example)
    return time.perf_counter() - begin


def _pace(model: Model, operation: str, example: Arrays, size: int) -> float:
    """Seconds for an item of a batch of that size."""
    batch = {name: np.repeat(array, size, axis=0) for name, array in example.items()}
    model.run(operation, batch)
    return min(_seconds(model, operation, batch) for _ in range(BATCH_RUNS)) / size
