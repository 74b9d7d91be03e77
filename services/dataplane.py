"""The transport-free core that every protocol shares: the models that are served, which of them answers, readiness.

The protocols validate, because they know the caller's field names; the inputs of `Served.infer` fit the model.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from services import __version__, default_models
from services.caching.cache import Cache
from services.errors import InvalidInput, NotReady, UnknownModel
from services.inference import folder, registry
from services.inference.bundle import BundleError, Task
from services.inference.cpus import cpu_limit
from services.inference.model import Model
from services.inference.registry import Entry
from services.inference.scorer import Scorer
from services.scheduling.lag import LoopLag
from services.scheduling.offload import Offload
from services.served import Served, open_model, serve, warm_up
from services.settings import Settings
from services.shims import map_large_blocks, return_free_memory
from services.telemetry import metrics

log = logging.getLogger("duet")

M = TypeVar("M", bound=Model)
LOADERS = 2  # more would hardly help: two models take most of the time
GC_THRESHOLD = (20_000, 20, 20)  # a request leaves no reference cycles, so a collection every 700 objects is waste
SWITCH_SECONDS = 0.001  # a thread that computes in Python lets the event loop run after this time; Python's is 5 ms
FOLDER_SECONDS = 30.0  # DUET_BUNDLES may appear that long after the start
STARTING = "starting: models are being verified and warmed"


class DataPlane:
    """The models of some tasks, verified and warm, with their queues.

    The constructor lists the bundles in the store, so that a build can record them, or in DUET_BUNDLES, but loads
    nothing.

    Args:
        tasks: the tasks to serve.

    Attributes:
        entries: the selected bundles, by name; of the versions of a name the default one first, then the newest.
        problems: what keeps models from being served.
        damaged: why a selected bundle is not served, by tag.
        starting: models are still being loaded.
        offload: the thread for work on bodies and images.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self.settings = Settings()
        self.problems: list[str] = [STARTING]
        self.damaged: dict[str, str] = {}
        self.starting = True
        self.draining = False
        self.loaded = False
        self.lag = LoopLag()
        self.offload = Offload()
        self._watch: asyncio.Task[None] | None = None
        self.entries: list[Entry] = []
        self._unresolved = ""
        self._process = os.getpid()
        self._resolve()
        self._served: dict[str, Served[Model]] = {}
        self._selected: dict[tuple[type[Model], str, str | None], Served[Any]] = {}  # what requests asked for before
        self._cache = Cache()
        self._executor: ThreadPoolExecutor | None = None

    def _resolve(self) -> None:
        """Look into the store, or into DUET_BUNDLES."""
        settings = self.settings
        try:
            stored = folder.available(settings)
            entries = registry.resolve(settings.models, self.tasks, stored, folder.place(settings))
            self._unresolved = ""
        except BundleError as error:
            entries, self._unresolved = [], str(error)
        self.entries = sorted(entries, key=lambda entry: (entry.name, not self.defaults.means(entry)))

    @property
    def defaults(self) -> default_models.DefaultModels:
        """Which models requests mean that name none, or no version."""
        return default_models.parse(self.settings.default_models)

    @property
    def ready(self) -> bool:
        return not self.unready and not self.draining

    @property
    def served(self) -> list[Served[Model]]:
        """The models that are served, by name; of the versions of a name the default one first, then the newest."""
        return list(self._served.values())

    def check_damage(self, name: str) -> None:
        """Raise `NotReady` if models are not loaded, or if this one, `NAME` or `NAME:VERSION`, did not verify."""
        if not self.loaded and self.problems:
            raise NotReady("; ".join(self.problems), retry_after=1.0)
        for tag, problem in self.damaged.items():
            if name in (tag, tag.partition(":")[0]):
                raise NotReady(problem, retry_after=1.0)

    def of(self, kind: type[M]) -> list[Served[M]]:
        """The served models of one kind."""
        return [cast("Served[M]", served) for served in self._served.values() if isinstance(served.model, kind)]

    @property
    def unready(self) -> str:
        """Why the service is not ready, by the setting `readiness`; empty if it is."""
        if not self.loaded or not self.problems:
            return "; ".join(self.problems)
        if self.settings.readiness == "any" and self._served:
            return ""
        if self.settings.readiness == "default":
            served = {entry.name for entry in self.entries if entry.tag in self._served and self.defaults.means(entry)}
            if all(served.intersection(self.defaults.of_task(task, self.entries)) for task in self.tasks):
                return ""
        return "; ".join(self.problems)

    def check(self) -> None:
        """Raise `NotReady`, with the reasons, unless the service is ready for requests."""
        if reasons := self.unready:
            raise NotReady(reasons, retry_after=1.0)

    async def start(self) -> None:
        """Verify, load and warm every model; errors are logged and kept in `problems`, never raised.

        The process stays up and says why it is not ready, instead of crashing in a loop.
        """
        try:
            await self._start()
        except Exception as error:
            log.exception("start-up failed")
            self.problems = [f"start-up failed: {type(error).__name__}: {error}"]
        finally:
            self.starting = False

    async def _start(self) -> None:
        map_large_blocks()
        waited = await self._await_folder()
        if waited or os.getpid() != self._process:  # forked: the store may have changed since the parent looked
            await asyncio.to_thread(self._resolve)
        problems = [self._unresolved] if self._unresolved else []
        if not self._unresolved:
            problems += [self._missing(task) for task in self.tasks if not any(e.task == task for e in self.entries)]
            self.damaged = self.defaults.not_selected(self.entries)
            problems += self.damaged.values()
        self._watch = asyncio.create_task(self.lag.watch())
        try:
            self._cache = Cache.from_settings(self.settings)
        except ValueError as error:  # from the URL; the service answers without Redis
            log.error("DUET_REDIS_URL cannot be used (%s); serving without Redis", error)
            self._cache = Cache.from_settings(self.settings.model_copy(update={"redis_admission": "never"}))
        await self._cache.start()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duet-compute")
        loop = asyncio.get_running_loop()
        for entry, opening in zip(self.entries, await self._open_all(), strict=True):
            try:
                model = opening.result()
                warm = await loop.run_in_executor(self._executor, warm_up, model)
            except BundleError as error:
                problems.append(str(error))
                self.damaged[entry.tag] = str(error)
                continue
            served = serve(entry, model, warm, self._executor, self._cache, self.settings)
            await served.start()
            if isinstance(model, Scorer):
                model.watch(self.settings.drift_tolerated, self.settings.drift_slice_seconds)
                model.drift.show(entry.version, time.time)
            self._served[entry.tag] = served
            ways = ", ".join(f"{operation} {1e6 * found.seconds:.0f} µs" for operation, found in warm.items())
            log.info("serving %s (%s), digest %s; an item takes: %s", entry.tag, entry.task, model.bundle.digest, ways)
        for problem in problems:
            log.error("not ready: %s", problem)
        sys.setswitchinterval(SWITCH_SECONDS)
        # Everything loaded so far stays until the process ends; frozen, it does not slow down full collections.
        gc.collect()
        return_free_memory()  # what loading has freed: a few MB
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        gc.enable()
        self.problems = problems
        self.loaded = True
        import onnxruntime  # noqa: PLC0415  # the models have loaded it, and not the parent process

        metrics.BUILD_INFO.labels(__version__, platform.python_version(), onnxruntime.__version__).set(1)
        metrics.READY.set(self.ready)

    async def _await_folder(self) -> bool:
        """Whether it waited until DUET_BUNDLES existed: KServe's modelcar makes it while the service starts."""
        awaited, waited = Path(self.settings.bundles), False  # empty, it is the current folder
        end = time.monotonic() + FOLDER_SECONDS
        while not await asyncio.to_thread(awaited.exists) and time.monotonic() < end:
            self.problems, waited = [f"starting: {folder.place(self.settings)} does not exist yet"], True
            await asyncio.sleep(0.1)
        return waited

    async def _open_all(self) -> list[Future[Model]]:
        """Every model, verified and loaded, or what is wrong with it; warmed up they are one by one, to be measured.

        Hashing and ONNX Runtime release Python's lock, so threads share the work.
        """
        loaders = ThreadPoolExecutor(max_workers=min(LOADERS, cpu_limit()), thread_name_prefix="duet-load")
        try:
            opening = [loaders.submit(open_model, entry, self.settings) for entry in self.entries]
            await asyncio.gather(*map(asyncio.wrap_future, opening), return_exceptions=True)
        finally:
            loaders.shutdown(wait=False, cancel_futures=True)
        return opening

    def drain(self) -> None:
        """Become unready, so that the load balancer sends no more requests; requests are still answered."""
        self.draining = True
        metrics.READY.set(0)

    async def stop(self) -> None:
        self.problems, self.loaded = ["stopping"], False
        for served in self._served.values():
            await served.stop()
        self.offload.close()
        if self._executor is not None:  # a batch that runs may take a second
            await asyncio.to_thread(self._executor.shutdown)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._cache.close()

    def select(self, kind: type[M], operation: str, name: str | None) -> Served[M]:
        """The model `NAME` (its default version) or `NAME:VERSION`; without a name the default of its task.

        The default version of a name is the one that `DUET_DEFAULT_MODELS` names, else the newest.

        Raises:
            NotReady: models are not loaded, or this one did not verify, or there is none of its task.
            UnknownModel: no such model; the message lists the models that are served.
            InvalidInput: without a name, several models could answer.
        """
        known = self._selected.get((kind, operation, name))
        if known is not None and self.loaded:
            return cast("Served[M]", known)
        found = self._find(kind, operation, name)
        self._selected[kind, operation, name] = found
        return found

    def _find(self, kind: type[M], operation: str, name: str | None) -> Served[M]:
        if not self.loaded and self.problems:
            self.check()
        served = {one.entry.tag: one for one in self.of(kind) if operation in one.batchers}
        if name is None:
            return self._default(kind.task, operation, list(served.values()))
        for tag, one in served.items():
            if name == tag or (name == one.entry.name and self.defaults.means(one.entry)):
                return one
        self.check_damage(name)
        if self.problems and not any(entry.task == kind.task for entry in self.entries):
            raise NotReady("; ".join(self.problems), retry_after=1.0)
        raise UnknownModel(
            f"model {name[:80]!r} for {operation!r} is not served here; served are {', '.join(served) or 'none'}",
            field="model",
        )

    def _default(self, task: Task, operation: str, fitting: list[Served[M]]) -> Served[M]:
        """The model for a request that names none: the setting's, or the only one of its task."""
        by_name: dict[str, Served[M]] = {}
        for one in fitting:  # the newest version of a name comes first
            if self.defaults.means(one.entry):
                by_name.setdefault(one.entry.name, one)
        names = {entry.name for entry in self.entries if entry.task == task}
        damaged = {name: why for tag, why in self.damaged.items() if (name := tag.partition(":")[0]) in names}
        for name in self.defaults.preferred(self.entries):
            if name in by_name:
                return by_name[name]
            if name in damaged:
                raise NotReady(damaged[name], retry_after=1.0)
        if len(by_name) == 1 and not damaged.keys() - by_name.keys():
            return next(iter(by_name.values()))
        if not by_name and self.problems:
            raise NotReady("; ".join(self.problems), retry_after=1.0)
        if not by_name:
            raise UnknownModel(f"a model for {operation!r} is not served here; served are none", field="model")
        raise InvalidInput(
            f"model is missing, and several models offer {operation!r}: send one of "
            f"{', '.join(sorted({*by_name, *damaged}))}, or let the operator choose with DUET_DEFAULT_MODELS",
            field="model",
        )

    def _missing(self, task: Task) -> str:
        if self.settings.bundles:
            return f"no {task} model in {folder.place(self.settings)}: mount or pull one there"
        return f"no {task} model in the store: run `duet train` or `duet models import`"
