"""How much memory and disk a pod needs, from the settings of its service.

The constants are what `make bench-memory` measured; docs/results/install_size.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.manifests.objects import (
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
# Each is the most that one kind of load took of memory, alone. All kinds at once took less than the sum.
IDLE = 220 * MEBI  # both processes of a service, ready, with the reference models
COMPUTE = 129 * MEBI  # the dearest requests: batches in ONNX Runtime, heat maps, samples
BODY = 1.08  # bytes for a byte of bodies
TREE = 20  # bytes of the parsed JSON of the worst bodies for a byte of DUET_BODY_BYTES; one thread parses
PIXEL = 24  # bytes of a picture while it is decoded, for a pixel of DUET_IMAGE_PIXELS; the same thread decodes
CACHE = 1.23  # bytes for a byte of answers that the cache counts
ANSWER = 3.7  # bytes for a byte of answers that nobody reads, with those that are computed meanwhile
CONNECTION = 9 * 2**10  # bytes of one
MARGIN = 8 * MEBI
LOGS = 50 * MEBI  # of each container on the disk: the kubelet keeps five files of 10 MiB


def memory(settings: Settings) -> dict[str, int]:
    """Bytes that the processes of a service may take, by what for."""
    return {
        "idle": IDLE,
        "compute": COMPUTE,
        "bodies": int(BODY * settings.bodies_bytes),
        "trees and pixels": max(TREE * settings.body_bytes, PIXEL * settings.image_pixels),
        "cache": int(CACHE * settings.cache_memory_bytes),
        "answers": int(ANSWER * settings.unread_bytes),
        "batches": settings.batch_bytes,
        "connections": CONNECTION * settings.connections,
        "margin": MARGIN,
    }


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
        written = {key: volume["emptyDir"] for key, volume in volumes(item).items() if "emptyDir" in volume}
        endless = [key for key, volume in written.items() if "sizeLimit" not in volume]
        yield from (f"{name(item)}: volumes[{key}].emptyDir.sizeLimit is missing" for key in endless)
        for container in containers(item):
            for field in ("requests", "limits"):
                for resource in ("memory", "ephemeral-storage"):
                    if resource not in container.get("resources", {}).get(field, {}):
                        yield f"{name(item)}: containers[{container['name']}].resources.{field}.{resource} is missing"
        running = pod(item)["containers"]
        limit = sum(in_bytes(c.get("resources", {}).get("limits", {}).get("ephemeral-storage", 0)) for c in running)
        least = sum(in_bytes(volume.get("sizeLimit", 0)) for volume in written.values()) + LOGS * len(running)
        if limit < least:
            yield f"{name(item)}: limits.ephemeral-storage: {limit} bytes are less than {least} of volumes and logs"
