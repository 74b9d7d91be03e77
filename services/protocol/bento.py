"""How a Duet service sits in BentoML: its configuration, its life cycle and its guard."""

from __future__ import annotations

from typing import Any

import bentoml

from services.dataplane import DataPlane
from services.protocol.guard import Guard
from services.settings import Settings
from services.telemetry import logs

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

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start_plane(self) -> None:
        logs.configure()
        await self.plane.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop_plane(self) -> None:
        await self.plane.stop()


def outfit(service: Any, plane: DataPlane) -> None:
    """Put the guard around a service and record its models, so that a bento of it packs them."""
    service.models.extend(bentoml.models.BentoModel(entry.tag) for entry in plane.entries)
    routes = {method.route for method in service.apis.values()}
    service.add_asgi_middleware(Guard, plane=plane, routes=routes)
