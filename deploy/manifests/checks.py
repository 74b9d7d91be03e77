"""All checks of rendered objects, by name; the first line of each function says what it demands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.manifests import images, network, pods, redis, routes, scaling, settings, sizing
from deploy.manifests.objects import Objects

Check = Callable[[Objects], Iterator[str]]

CHECKS: dict[str, Check] = {
    "namespace": pods.namespace,
    "security": pods.security,
    "probes": pods.probes,
    "ports": pods.ports,
    "grace": pods.grace,
    "selectors": pods.selectors,
    "disruption": pods.disruption,
    "spread": pods.spread,
    "versions": pods.versions,
    "settings": settings.names,
    "threads": settings.threads,
    "variables": settings.order,
    "memory": sizing.limits,
    "storage": sizing.storage,
    "autoscalers": scaling.targets,
    "replicas": scaling.replicas,
    "queries": scaling.queries,
    "images": images.digests,
    "models": images.models,
    "keys": images.keys,
    "references": images.references,
    "network": network.closed,
    "dns": network.dns,
    "traces": network.traces,
    "redis network": network.redis,
    "redis memory": redis.cache,
    "redis access": redis.access,
    "redis URL": redis.urls,
    "paths": routes.paths,
    "backends": routes.backends,
    "timeouts": routes.timeouts,
    "keep-alive": routes.keep_alive,
}


def problems(objects: Objects) -> dict[str, list[str]]:
    """What each check that is not content found."""
    return {name: found for name, check in CHECKS.items() if (found := list(check(objects)))}
