"""How a Duet service sits in BentoML: its configuration, its life cycle and its guard."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import Any

import bentoml
from circus.sighandler import SysHandler

from services.dataplane import DataPlane
from services.protocol.guard import Lane
from services.settings import Settings
from services.telemetry import logs

log = logging.getLogger("duet")

# BentoML keeps every request's timer and context for this long, so it must stay short; the deadline proper is ours.
TIMEOUT_SECONDS = Settings().request_timeout_ms / 1000 + 1

CONFIG: dict[str, Any] = {
    "workers": 1,  # one process a pod: one queue, one registry of metrics; replicas scale
    "traffic": {"timeout": TIMEOUT_SECONDS},
    "metrics": {"enabled": False},  # raw paths as labels; ours are on the same /metrics
    "logging": {"access": {"enabled": False}},  # 17 % of the throughput; metrics and the ingress know it all
    "envs": [{"name": "OTEL_SDK_DISABLED", "value": "true"}],  # it records spans even when it samples none
}


class Lifecycle:
    """Starts and stops a service's data plane with its worker."""

    plane: DataPlane

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def hear_haste() -> None:
        """Runs in BentoML's parent process, which starts the workers and minds the signals."""
        _hear_haste()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start_plane(self) -> None:
        """Load in the background: until then probes and callers get a 503 that says so, not an open end."""
        logs.configure()
        self._starting = asyncio.create_task(self.plane.start())
        _drain_on_signals(self.plane)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop_plane(self) -> None:
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await self.plane.stop()


def _drain_on_signals(plane: DataPlane) -> None:
    """Put a grace period before the server's own SIGTERM handler, which stops accepting at once.

    In it /readyz says 503, so that the load balancer stops sending, while whatever still comes is answered. A second
    SIGTERM ends it, and SIGINT goes without.
    """
    if threading.current_thread() is not threading.main_thread():  # a test's client; signals are not ours there
        return
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)

    def begin(seconds: float) -> None:
        log.info("told to stop: not ready from now on, accepting for %g s more", seconds)
        plane.drain()
        if callable(stop):
            loop.call_later(seconds, stop, signal.SIGTERM, None)

    def on_signal(number: int, frame: object) -> None:
        now = plane.draining or number == signal.SIGINT
        loop.call_soon_threadsafe(begin, 0.0 if now else plane.settings.drain_seconds)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _hear_haste() -> None:
    """Pass Ctrl-C, or a second SIGTERM, on to the workers as SIGINT.

    The parent (circus) makes one SIGTERM of whatever comes first and is deaf from then on, and the terminal's Ctrl-C
    does not reach the workers, for each has a session of its own.
    """
    first = SysHandler.signal
    heard: list[int] = []

    def on_signal(self: Any, number: int, frame: object = None) -> None:
        if number == signal.SIGINT or (number == signal.SIGTERM and heard):
            for watcher in self.controller.arbiter.iter_watchers():
                for process in watcher.processes.values():
                    process.send_signal(signal.SIGINT)
        heard.append(number)
        first(self, number, frame)

    SysHandler.signal = on_signal


def outfit(service: Any, plane: DataPlane) -> None:
    """Put the guard around a service and record its models, so that a bento of it packs them."""
    service.models.extend(bentoml.models.BentoModel(entry.tag) for entry in plane.entries)
    routes = {method.route for method in service.apis.values()}
    service.add_asgi_middleware(Lane, plane=plane, routes=routes, name=service.name)
