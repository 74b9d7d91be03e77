"""Checks of the gateway's routes: what clients outside reach, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deploy.manifests.objects import Object, Objects, in_seconds, labels, name, of_kind, services, serving, variables
from deploy.manifests.settings import read

INSIDE = ("/metrics", "/drift", "/livez", "/readyz", "/startupz", "/", "/docs.json")
NATIVE = {
    "generation": ("/generate", "/interpolate", "/reconstruct", "/redraw"),
    "classification": ("/classify",),
    "anomaly": ("/score",),
}
SHARED = ("/v2", "/v2/models/any/infer", "/models", "/models/any/files/card.md")
PROXY_IDLE_SECONDS = 600.0  # for which common load balancers keep an idle connection
MARGIN_SECONDS = 1.0


def _matches(rule: Mapping[str, Any], path: str) -> bool:
    """Whether a rule of an HTTPRoute routes a path, whatever the method; a rule without matches routes everything."""
    for match in rule.get("matches", [{}]):
        kind, value = match.get("path", {}).get("type", "PathPrefix"), match.get("path", {}).get("value", "/")
        exact = kind == "Exact" and path == value
        prefix = kind == "PathPrefix" and (path + "/").startswith(value.rstrip("/") + "/")
        if exact or prefix or (kind == "RegularExpression" and re.match(value, path)):
            return True
    return False


def paths(objects: Objects) -> Iterator[str]:
    """Clients outside reach the routes of each task, V2 and the models; not metrics, probes, drift and pages."""
    targets = {item["metadata"]["name"]: item for item in services(objects)}
    for route in of_kind(objects, "HTTPRoute").values():
        for path in INSIDE:
            if any(_matches(rule, path) for rule in route["spec"]["rules"]):
                yield f"{name(route)}: rules.matches: {path} is reached from outside"
        for backend in _backends(route):
            if backend["name"] in targets:
                task = labels(targets[backend["name"]])["app.kubernetes.io/name"].removeprefix("duet-")
                for path in (*NATIVE[task], *SHARED):
                    if not any(_matches(rule, path) for rule in route["spec"]["rules"]):
                        yield f"{name(route)}: rules.matches: {path} is not reached"


def _backends(route: Object) -> Iterator[Object]:
    for rule in route["spec"]["rules"]:
        yield from rule.get("backendRefs", [])


def backends(objects: Objects) -> Iterator[str]:
    """Routes end at Services and ports that there are, over a listener with TLS."""
    ports = {key: [p["port"] for p in item["spec"]["ports"]] for key, item in of_kind(objects, "Service").items()}
    gateways = of_kind(objects, "Gateway")
    for route in of_kind(objects, "HTTPRoute").values():
        for backend in _backends(route):
            if backend.get("port") not in ports.get(backend["name"], []):
                yield f"{name(route)}: backendRefs: no Service {backend['name']} with port {backend.get('port')}"
        if sum(backend.get("weight", 1) for backend in _backends(route)) == 0:
            yield f"{name(route)}: backendRefs: all weights are 0"
        for parent in route["spec"].get("parentRefs", []):
            listeners = gateways.get(parent["name"], {}).get("spec", {}).get("listeners", [])
            ours = [listener for listener in listeners if listener["name"] == parent.get("sectionName")]
            if listeners and not any(one["protocol"] == "HTTPS" and "tls" in one for one in ours):
                yield f"{name(route)}: parentRefs: {parent.get('sectionName')} is no listener with TLS"


def timeouts(objects: Objects) -> Iterator[str]:
    """The gateway waits longer than the service's deadline, and tries again only where a connection failed."""
    pods = {item["metadata"]["name"]: read(variables(objects, serving(item))) for item in services(objects)}
    for route in of_kind(objects, "HTTPRoute").values():
        for rule in route["spec"]["rules"]:
            given = rule.get("timeouts", {})
            one, all_ = (in_seconds(given.get(field, "0s")) for field in ("backendRequest", "request"))
            for backend in rule.get("backendRefs", []):
                deadline = pods[backend["name"]].request_timeout_ms / 1000 if backend["name"] in pods else 0.0
                if not deadline + MARGIN_SECONDS <= one <= all_:
                    yield (
                        f"{name(route)}: timeouts: backendRequest {one:g} s is not between DUET_REQUEST_TIMEOUT_MS "
                        f"with {MARGIN_SECONDS:g} s of margin, {deadline + MARGIN_SECONDS:g} s, and request {all_:g} s"
                    )
            if rule.get("retry", {}).get("codes") or rule.get("retry", {}).get("attempts") != 1:
                yield f"{name(route)}: retry: {rule.get('retry')} is not one attempt for connections that failed"


def keep_alive(objects: Objects) -> Iterator[str]:
    """Services keep idle connections for longer than proxies before them, which else answer 502 now and then."""
    for item in services(objects):
        kept = read(variables(objects, serving(item))).keep_alive_seconds
        if kept <= PROXY_IDLE_SECONDS:
            idle = f"{PROXY_IDLE_SECONDS:g}, a proxy's idle time"
            yield f"{name(item)}: DUET_KEEP_ALIVE_SECONDS: {kept:g} is not above {idle}"
