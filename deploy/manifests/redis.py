"""Checks of the Redis beside the services: a cache with a password, TLS and bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlsplit

from deploy.manifests.objects import (
    Objects,
    in_bytes,
    labels,
    name,
    of_kind,
    pod,
    services,
    serving,
    variables,
    workloads,
)

# maxmemory counts the data; buffers of clients and fragmentation come on top.
OVERHEAD = 1.4
HARMLESS = {"+ping"}


def cache(objects: Objects) -> Iterator[str]:
    """Redis keeps answers in memory only, drops old ones when it is full, and has room for its buffers."""
    for item in workloads(objects):
        if labels(item).get("app.kubernetes.io/component") != "cache":
            continue
        container = pod(item)["containers"][0]
        options = dict(pairwise(container["args"]))
        for option, value in (("--maxmemory-policy", "allkeys-lru"), ("--save", ""), ("--appendonly", "no")):
            if options.get(option) != value:
                yield f"{name(item)}: args: {option} {options.get(option)} is not {value!r}"
        limit, needed = (
            in_bytes(container["resources"]["limits"]["memory"]),
            OVERHEAD * in_bytes(options["--maxmemory"]),
        )
        if limit < needed:
            yield f"{name(item)}: resources.limits.memory: {limit} bytes are less than {OVERHEAD} times --maxmemory"


def access(objects: Objects) -> Iterator[str]:
    """Redis listens with TLS only, and gives nothing but PING to those without the password."""
    for item in workloads(objects):
        if labels(item).get("app.kubernetes.io/component") != "cache":
            continue
        arguments = [str(one) for one in pod(item)["containers"][0]["args"]]
        options = dict(pairwise(arguments))
        if options.get("--port") != "0" or options.get("--tls-port") != "6379":
            yield f"{name(item)}: args: --port and --tls-port are not 0 and 6379"
        users = [user.split() for user in " ".join(arguments).split("--user ")[1:]]
        for who, *rules in users:
            granted = {rule for rule in rules if rule.startswith("+") or rule in ("allcommands", "allkeys")}
            if "on" in rules and not any(rule.startswith(">$(") for rule in rules) and not granted <= HARMLESS:
                yield f"{name(item)}: args: --user {who} needs no password from a Secret and may {sorted(granted)}"
            if "-@all" not in rules:
                yield f"{name(item)}: args: --user {who} may use every command"
        if "default" not in [who for who, *_ in users]:
            yield f"{name(item)}: args: the user default is not bounded"


def urls(objects: Objects) -> Iterator[str]:
    """The services' URL of Redis is that of the Service beside them, with TLS, its authority and a password."""
    ports = {key: [p["port"] for p in item["spec"]["ports"]] for key, item in of_kind(objects, "Service").items()}
    for item in services(objects):
        url = variables(objects, serving(item)).get("DUET_REDIS_URL")
        if url is None:  # none, or a Secret has it
            continue
        parts = urlsplit(url)
        if parts.port not in ports.get(parts.hostname or "", []):
            yield f"{name(item)}: DUET_REDIS_URL: there is no Service {parts.hostname} with port {parts.port}"
        if (
            parts.scheme != "rediss"
            or "ssl_ca_certs=" not in parts.query
            or not (parts.password or "").startswith("$(")
        ):
            yield f"{name(item)}: DUET_REDIS_URL: is not rediss:// with ssl_ca_certs and a password from a Secret"
