"""How much memory and disk a pod needs, from the settings of its service.

The constants are what `make bench-memory` measured; docs/results/memory.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.manifests.objects import (
    Object,
    Objects,
    containers,
    in_bytes,
    name,
    pod,
    services,
    serving,
    variables,
    volumes,
    workloads,
)
from deploy.manifests.settings import read
from services.settings import Settings

MEBI = 2**20
IDLE = 190 * MEBI  # both processes of a service, ready, with six reference models
COMPUTE = 64 * MEBI  # arenas of graphs for the dearest requests
TREE = 12  # bytes of the parsed JSON of one body, for a byte of it; one body is parsed at a time
PIXEL = 16  # bytes of a picture while it is decoded, for a pixel; one picture is decoded at a time
CACHE = 1.1  # bytes in memory for a byte of answers that the cache counts
CONNECTION = 4 * 2**10  # bytes of an idle one
MARGIN = 1.1
LOGS = 50 * MEBI  # of each container on the disk: the kubelet keeps five files of 10 MiB


def memory(settings: Settings) -> dict[str, int]:
    """Bytes that the processes of a service may take, by what for."""
    parts = {
        "idle": IDLE,
        "compute": COMPUTE,
        "bodies": settings.bodies_bytes,
        "trees and pixels": max(TREE * settings.body_bytes, PIXEL * settings.image_pixels),
        "cache": int(CACHE * settings.cache_memory_bytes),
        "answers": settings.unread_bytes,
        "batches": settings.batch_bytes,
        "connections": CONNECTION * settings.connections,
    }
    return parts | {"margin": int((MARGIN - 1) * sum(parts.values()))}


def needed(objects: Objects, service: Object) -> int:
    """Bytes that a pod of a service needs."""
    return sum(memory(read(variables(objects, serving(service)))).values())


def limits(objects: Objects) -> Iterator[str]:
    """The memory of a service is reserved, and has room for all that its settings let in."""
    for item in services(objects):
        resources = serving(item).get("resources", {})
        limit, request = (resources.get(field, {}).get("memory", 0) for field in ("limits", "requests"))
        if limit != request:
            yield f"{name(item)}: resources: the memory limit {limit} is not the request {request}"
        parts = memory(read(variables(objects, serving(item))))
        if in_bytes(limit) < (least := sum(parts.values())):
            sums = ", ".join(f"{part} {size / MEBI:.0f}" for part, size in parts.items())
            yield f"{name(item)}: resources.limits.memory: {limit} is less than {least / MEBI:.0f}Mi ({sums})"


def storage(objects: Objects) -> Iterator[str]:
    """Pods write to volumes of bounded size only, and their ephemeral storage has room for those and for logs."""
    for item in workloads(objects):
        sizes = {key: volume["emptyDir"].get("sizeLimit", "0") for key, volume in volumes(item).items() if "emptyDir" in volume}
        yield from (f"{name(item)}: volumes[{key}].emptyDir.sizeLimit is missing" for key, size in sizes.items() if size == "0")
        for container in containers(item):
            for field in ("requests", "limits"):
                for resource in ("memory", "ephemeral-storage"):
                    if resource not in container.get("resources", {}).get(field, {}):
                        yield f"{name(item)}: containers[{container['name']}].resources.{field}.{resource} is missing"
        running = pod(item)["containers"]
        limit = sum(in_bytes(c.get("resources", {}).get("limits", {}).get("ephemeral-storage", 0)) for c in running)
        least = sum(map(in_bytes, sizes.values())) + LOGS * len(running)
        if limit < least:
            yield f"{name(item)}: resources.limits.ephemeral-storage: {limit} bytes are less than {least} of volumes and logs"
