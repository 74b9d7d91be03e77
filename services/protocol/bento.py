"""A Duet service in BentoML: its configuration, its life cycle and its gateway."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import bentoml
from starlette.responses import Response

from services import __version__
from services.dataplane import DataPlane
from services.inference.bundle import Task
from services.protocol.direct import connection_class
from services.protocol.gateway import FastPathMiddleware, Gateway
from services.protocol.services import routes_of
from services.settings import Settings, SettingsError, TraceSettings, read, read_traces
from services.shims import before_signals, changes, fork_workers, use_connections, write_server_logs
from services.telemetry import logs
from services.telemetry.span_export import SpanExport
from services.telemetry.trace import TRACING, Tracer

log = logging.getLogger("duet")


def _settings() -> tuple[Settings, TraceSettings | None]:
    """The settings; a wrong one ends the process with one sentence in the log and without BentoML's traceback."""
    try:
        return read(), read_traces()
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None


def _configure_logs() -> None:
    settings, _ = _settings()
    logs.configure(settings.log_format, settings.log_lines)
    if settings.log_format == "json":
        write_server_logs(logs.JsonLines, partial(logs.Bound, settings.log_lines))


# BentoML keeps the timer and context of every request for this long, so it is short; Duet itself enforces deadlines.
TIMEOUT_SECONDS = _settings()[0].request_timeout_ms / 1000 + 1

CONFIG: dict[str, Any] = {
    "workers": 1,  # one process in a pod: one queue, one registry of metrics; replicas scale
    "traffic": {"timeout": TIMEOUT_SECONDS},
    "metrics": {"enabled": False},  # BentoML's use raw paths as labels; Duet's are on /metrics
    "logging": {"access": {"enabled": False}},  # costs 17 % of the throughput; metrics and ingress have the same data
    # Else BentoML records spans, even if it samples none. Duet's do not ask the SDK (services/telemetry/spans.py).
    "envs": [{"name": "OTEL_SDK_DISABLED", "value": "true"}],
}


NOT_STARTED = Response("BentoML has not made its application yet\n", 503)


class Lifecycle:
    """Starts and stops a service's data plane with its worker."""

    plane: DataPlane
    service_name: str

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def prepare_parent() -> None:
        """Runs in BentoML's parent process, which starts the workers and handles the signals."""
        _configure_logs()
        _forward_interrupts()
        fork_workers()
        gc.enable()  # `duet serve` imports without it

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start_plane(self) -> None:
        """Load in the background; until the models are ready, probes and callers get a 503 with the reason."""
        _configure_logs()
        for change in changes():
            log.warning("a library has changed: %s", change)
        self._traces = _start_traces(self.service_name)
        self._starting = asyncio.create_task(self.plane.start())
        _drain_on_signals(self.plane)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop_plane(self) -> None:
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await self.plane.stop()
        if self._traces is not None:
            TRACING.tracer = None
            await asyncio.to_thread(self._traces.stop)


def _start_traces(service: str) -> SpanExport | None:
    """Trace requests from now on, if the environment names a collector."""
    _, settings = _settings()
    if settings is None:
        return None
    export = SpanExport(settings.endpoint, service, __version__, pause_seconds=settings.bsp_schedule_delay / 1000)
    export.start()
    by_parent = settings.traces_sampler.startswith("parentbased_")
    TRACING.tracer = Tracer(settings.share, export, by_parent=by_parent)
    callers = "and those that callers trace" if by_parent else "whatever callers trace"
    log.info("traces are sent: a share of %g of the requests, %s", settings.share, callers)
    return export


def _drain_on_signals(plane: DataPlane) -> None:
    """Put a grace period before the server's own SIGTERM handler, which stops accepting at once.

    During this period /readyz answers 503, so that the load balancer stops sending, and requests are still answered. A
    second SIGTERM ends the period; SIGINT skips it.
    """
    if threading.current_thread() is not threading.main_thread():  # a test client: only the main thread handles signals
        return
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)

    def begin(seconds: float) -> None:
        log.info("stopping: /readyz answers 503 from now on; requests are accepted for %g s more", seconds)
        plane.drain()
        if callable(stop):
            loop.call_later(seconds, stop, signal.SIGTERM, None)

    def on_signal(number: int, frame: object) -> None:
        now = plane.draining or number == signal.SIGINT
        loop.call_soon_threadsafe(begin, 0.0 if now else plane.settings.drain_seconds)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _forward_interrupts() -> None:
    """Pass Ctrl-C, or a second SIGTERM, on to the workers as SIGINT.

    The parent (circus) sends one SIGTERM for the first signal and ignores all later ones. The terminal's Ctrl-C does
    not reach the workers, because each has its own session.
    """
    heard: list[int] = []

    def forward(workers: Sequence[Any], number: int) -> None:
        if number == signal.SIGINT or (number == signal.SIGTERM and heard):
            for worker in workers:
                worker.send_signal(signal.SIGINT)
        heard.append(number)

    before_signals(forward)


def make_service(name: str, tasks: Sequence[Task], description: str) -> Any:
    """A BentoML service for some tasks: its data plane, its routes behind BentoML's layers, its gateway before them.

    Its models, if they are in the store, are recorded, so that its bento includes them.
    """
    plane = DataPlane(tasks)
    routes = routes_of(tasks)
    methods = {path.strip("/"): route.api() for path, route in routes.items()}
    made = type(name, (Lifecycle,), {"plane": plane, "service_name": name.lower(), "__doc__": description, **methods})
    gateway = Gateway(NOT_STARTED, plane, routes, name.lower())
    use_connections(connection_class(gateway))
    service = bentoml.service(name=name.lower(), **CONFIG)(made)
    if not plane.settings.bundles:
        service.models.extend(bentoml.models.BentoModel(entry.tag) for entry in plane.entries)
    service.add_asgi_middleware(FastPathMiddleware, gateway=gateway)
    return service
