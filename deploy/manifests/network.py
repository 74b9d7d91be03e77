"""Checks of network policies: a small reading of what they let through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from deploy.manifests.objects import (
    PART_OF,
    Object,
    Objects,
    labels,
    name,
    of_kind,
    selects,
    services,
    serving,
    variables,
    workloads,
)


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod of some namespace, or an address that is no pod's."""

    pod: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""  # empty: that of the policy
    address: str = ""


STRANGER = Peer({"app": "other"}, "other")
OUTSIDE = Peer(address="203.0.113.7")
RESOLVERS = {
    "kube-system": (Peer({"k8s-app": "kube-dns"}, "kube-system"), 53),
    "OpenShift": (Peer({"dns.operator.openshift.io/daemonset-dns": "default"}, "openshift-dns"), 5353),
    "the node-local cache": (Peer(address="169.254.20.10"), 53),
    "the cluster address of DNS": (Peer(address="10.96.0.10"), 53),
}


def allowed(objects: Objects, workload: Object, direction: str, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let `direction`, Ingress or Egress, of the pods of a workload through."""
    policies = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy").values()
        if selects(policy["spec"]["podSelector"], labels(workload)) and direction in policy["spec"]["policyTypes"]
    ]
    side = "from" if direction == "Ingress" else "to"
    rules = [rule for spec in policies for rule in spec.get(direction.lower(), [])]
    return not policies or any(
        (side not in rule or any(_is(peer, source) for source in rule[side]))
        and any(open_["port"] == port and open_.get("protocol", "TCP") == protocol for open_ in rule.get("ports", []))
        for rule in rules
    )


def _is(peer: Peer, source: Mapping[str, Any]) -> bool:
    if peer.address:
        return "ipBlock" in source and ip_address(peer.address) in ip_network(source["ipBlock"]["cidr"])
    if "ipBlock" in source:
        return False
    if "namespaceSelector" in source:
        if not peer.namespace:
            return False  # in no rule here
        if not selects(source["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace}):
            return False
    elif peer.namespace:
        return False
    return "podSelector" not in source or selects(source["podSelector"], peer.pod)


def closed(objects: Objects) -> Iterator[str]:
    """Pods let in what asks the services, and nothing from outside the cluster; they reach nothing outside."""
    deny = of_kind(objects, "NetworkPolicy").get("duet-default-deny", {}).get("spec")
    if deny != {"podSelector": {"matchLabels": dict(PART_OF)}, "policyTypes": ["Ingress", "Egress"]}:
        yield "NetworkPolicy/duet-default-deny: does not deny all traffic of all pods of Duet"
    for item in workloads(objects):
        if not selects({"matchLabels": PART_OF}, labels(item)):
            yield f"{name(item)}: labels: no policy selects pods without {PART_OF}"
        for port in (22, 53, 80, 443, 3000, 6379):
            if allowed(objects, item, "Egress", OUTSIDE, port):
                yield f"{name(item)}: its pods reach any address at port {port}"
            if allowed(objects, item, "Ingress", OUTSIDE, port):
                yield f"{name(item)}: any address reaches its pods at port {port}"
    for item in services(objects):
        if not allowed(objects, item, "Ingress", STRANGER, 3000):
            yield f"{name(item)}: pods of gateways and of Prometheus do not reach port 3000"


def dns(objects: Objects) -> Iterator[str]:
    """Pods ask for names wherever clusters answer: in kube-system, on OpenShift, or by a cache on the node."""
    for item in workloads(objects):
        for where, (peer, port) in RESOLVERS.items():
            for protocol in ("UDP", "TCP"):
                if not allowed(objects, item, "Egress", peer, port, protocol):
                    yield f"{name(item)}: its pods do not reach {where} at {protocol} {port}"


def traces(objects: Objects) -> Iterator[str]:
    """Services reach the collector that their variables name, if it is in the cluster."""
    for item in services(objects):
        url = urlsplit(variables(objects, serving(item)).get("OTEL_EXPORTER_OTLP_ENDPOINT") or "")
        port = url.port or (443 if url.scheme == "https" else 80)
        if url.hostname and not allowed(objects, item, "Egress", STRANGER, port):
            yield f"{name(item)}: its pods do not reach {url.hostname} at port {port}, where traces are sent to"


def redis(objects: Objects) -> Iterator[str]:
    """Services reach the Redis beside them, and no other pod does."""
    for cache in workloads(objects):
        if labels(cache).get("app.kubernetes.io/component") != "cache":
            continue
        for item in services(objects):
            if not allowed(objects, item, "Egress", Peer(labels(cache)), 6379):
                yield f"{name(item)}: its pods do not reach {name(cache)}"
            if not allowed(objects, cache, "Ingress", Peer(labels(item)), 6379):
                yield f"{name(cache)}: does not let in the pods of {name(item)}"
        if allowed(objects, cache, "Ingress", STRANGER, 6379):
            yield f"{name(cache)}: lets in pods that are not Duet's"
        if not allowed(objects, cache, "Ingress", STRANGER, 9121):
            yield f"{name(cache)}: Prometheus does not reach the exporter"
