"""Mistakes about who reaches what: network policies, Redis, routes and connections. Importing this adds them."""

from __future__ import annotations

from deploy.manifests.objects import Objects, of_kind
from tests.manifests.mistakes import SERVICE, container, mistake, replace, variable


@mistake("pods may reach every address", "network")
def _(objects: Objects) -> None:
    of_kind(objects, "NetworkPolicy")["duet-dns"]["spec"]["egress"].append({"ports": [{"port": 443}]})


@mistake("the policy that denies the rest is gone", "network")
def _(objects: Objects) -> None:
    objects.remove(of_kind(objects, "NetworkPolicy")["duet-default-deny"])


@mistake("names are asked in kube-system only", "dns")
def _(objects: Objects) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    of_kind(objects, "NetworkPolicy")["duet-dns"]["spec"]["egress"][0]["to"] = [{"namespaceSelector": selector}]


@mistake("traces are sent to a port that no policy lets through", "traces", "overlays/production", "traces")
def _(objects: Objects) -> None:
    variable(objects, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.observability:4317")


@mistake("every pod of the cluster reaches Redis", "redis network")
def _(objects: Objects) -> None:
    of_kind(objects, "NetworkPolicy")["duet-redis"]["spec"]["ingress"][0]["from"] = [{"namespaceSelector": {}}]


@mistake("Redis has no room beside its data", "redis memory")
def _(objects: Objects) -> None:
    replace(container(objects, "duet-redis")["args"], "256mb", "384mb")


@mistake("Redis needs no password", "redis access")
def _(objects: Objects) -> None:
    replace(container(objects, "duet-redis")["args"], ">$(REDIS_PASSWORD)", "nopass")


@mistake("Redis listens without TLS", "redis access")
def _(objects: Objects) -> None:
    replace(container(objects, "duet-redis")["args"], "0", "6380")


@mistake("the URL of Redis names a Service that there is not", "redis URL")
def _(objects: Objects) -> None:
    (url,) = (item for item in container(objects)["env"] if item["name"] == "DUET_REDIS_URL")
    url["value"] = url["value"].replace("@duet-redis:", "@redis:")


@mistake("clients outside reach `/metrics`", "paths")
def _(objects: Objects) -> None:
    rule = of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]
    rule["matches"].append({"path": {"type": "Exact", "value": "/metrics"}})


@mistake("a route takes every path", "paths")
def _(objects: Objects) -> None:
    del of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]["matches"]


@mistake("a route does not have the task's own path", "paths")
def _(objects: Objects) -> None:
    of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]["matches"].pop(0)


@mistake("a route ends at a port that its Service does not have", "backends")
def _(objects: Objects) -> None:
    of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]["backendRefs"][0]["port"] = 80


@mistake("the listener of the routes has no TLS", "backends")
def _(objects: Objects) -> None:
    listener = of_kind(objects, "Gateway")["duet"]["spec"]["listeners"][0]
    listener["protocol"] = "HTTP"


@mistake("the gateway gives up before the service's deadline", "timeouts")
def _(objects: Objects) -> None:
    of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]["timeouts"]["backendRequest"] = "10s"


@mistake("the gateway repeats requests that were answered with an error", "timeouts")
def _(objects: Objects) -> None:
    of_kind(objects, "HTTPRoute")[SERVICE]["spec"]["rules"][0]["retry"]["codes"] = [500, 503]


@mistake("idle connections are closed before a proxy closes them", "keep-alive")
def _(objects: Objects) -> None:
    variable(objects, "DUET_KEEP_ALIVE_SECONDS", "60")
