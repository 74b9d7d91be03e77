"""Checks of pods: privileges, probes, ports, the time to end, and the node that they get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from deploy.manifests.objects import (
    PART_OF,
    Object,
    Objects,
    argument,
    containers,
    labels,
    name,
    of_kind,
    pod,
    selected,
    selects,
    services,
    serving,
    variables,
    volumes,
    workloads,
)
from deploy.manifests.settings import read
from services import __version__

PROBES = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
START_SECONDS = 60  # in which models are loaded and warmed up, on a slow node
LIVENESS_SECONDS = 45  # that a busy process may not answer
ENDPOINT_SECONDS = 10  # until the last proxy knows that a pod ends
MARGIN_SECONDS = 10
CLOSED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
HOST = ("hostNetwork", "hostPID", "hostIPC")
OPTIONS = {"--host": "0.0.0.0", "--port": "3000"}  # noqa: S104  # the container's own network


def namespace(objects: Objects) -> Iterator[str]:
    """All objects are in the one namespace that comes with them."""
    spaces = {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"}
    if spaces != set(of_kind(objects, "Namespace")):
        yield f"namespace: objects are in {sorted(map(str, spaces))}; give each overlay the field `namespace`"


def security(objects: Objects) -> Iterator[str]:
    """Pods meet the restricted standard, with a read-only root and without a token; their namespace demands it."""
    for space in of_kind(objects, "Namespace").values():
        if space["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name(space)}: labels: pod-security.kubernetes.io/enforce is not restricted"
    accounts = of_kind(objects, "ServiceAccount")
    users = {"runAsUser" in pod(item).get("securityContext", {}) for item in workloads(objects)}
    if len(users) > 1:
        yield "runAsUser: some pods name a user and others do not; put the component openshift last"
    for item in workloads(objects):
        spec, context = pod(item), pod(item).get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield f"{name(item)}: securityContext.runAsNonRoot is not true"
        if context.get("runAsUser", 10001) < 10000:
            yield f"{name(item)}: securityContext.runAsUser: {context['runAsUser']} may be a user of the node"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name(item)}: securityContext.seccompProfile is not RuntimeDefault"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name(item)}: automountServiceAccountToken is not false"
        if accounts.get(spec.get("serviceAccountName", ""), {}).get("automountServiceAccountToken") is not False:
            yield f"{name(item)}: serviceAccountName: no account of its own that mounts no token"
        yield from (f"{name(item)}: {field} is set" for field in HOST if spec.get(field))
        yield from (
            f"{name(item)}: volumes[{key}].hostPath is set" for key, v in volumes(item).items() if "hostPath" in v
        )
        for container in containers(item):
            if container.get("securityContext") != CLOSED:
                yield f"{name(item)}: containers[{container['name']}].securityContext is not {CLOSED}"


def probes(objects: Objects) -> Iterator[str]:
    """The start waits for the end of loading, requests for readiness, and only a dead process is restarted."""
    for item in services(objects):
        container = serving(item)
        for probe, path in PROBES.items():
            found = container.get(probe, {})
            if (asked := found.get("httpGet", {}).get("path")) != path:
                yield f"{name(item)}: {probe}.httpGet.path: {asked} is not {path}"
        for probe, least in (("startupProbe", START_SECONDS), ("livenessProbe", LIVENESS_SECONDS)):
            found = container.get(probe, {})
            if (waits := found.get("periodSeconds", 10) * found.get("failureThreshold", 3)) < least:
                yield f"{name(item)}: {probe}: gives up after {waits} s; at least {least} s are needed"


def ports(objects: Objects) -> Iterator[str]:
    """Containers listen where probes, Services, routes, monitors and annotations look for them."""
    for item in services(objects):
        yield from _listening(item)
    for item in workloads(objects):
        for container in containers(item):
            known = {port["name"] for port in container.get("ports", [])}
            for probe in PROBES:
                action = container.get(probe, {}).get("httpGet") or container.get(probe, {}).get("tcpSocket")
                if action and action["port"] not in known:
                    yield f"{name(item)}: {probe}: port {action['port']} is none of {sorted(known)}"
    yield from _looked_for(objects, {name(item): _open(item) for item in workloads(objects)})


def _listening(item: Object) -> Iterator[str]:
    container = serving(item)
    arguments = container.get("args", [])
    for option, value in OPTIONS.items():
        if (given := argument(container, option)) != value:
            yield f"{name(item)}: args: {option} {given} is not {value}"
    if (listening := {port["name"]: port["containerPort"] for port in container.get("ports", [])}) != {"http": 3000}:
        yield f"{name(item)}: ports: {listening} are not http: 3000"
    if arguments[:1] != [task := labels(item).get("app.kubernetes.io/name", "").removeprefix("duet-")]:
        yield f"{name(item)}: args: {arguments[:1]} is not the task {task}"
    told = item["spec"]["template"]["metadata"].get("annotations", {})
    if (told.get("prometheus.io/port"), told.get("prometheus.io/path")) != ("3000", "/metrics"):
        yield f"{name(item)}: annotations: prometheus.io/port and path are not 3000 and /metrics"


def _looked_for(objects: Objects, listening: Mapping[str, dict[str, int]]) -> Iterator[str]:
    for service in of_kind(objects, "Service").values():
        for port in service["spec"]["ports"]:
            for target in selected(objects, {"matchLabels": service["spec"]["selector"]}):
                if listening[target].get(port["targetPort"]) != port["port"]:
                    yield f"{name(service)}: targetPort {port['targetPort']} of {target} is not its port {port['port']}"
    for monitor in of_kind(objects, "PodMonitor").values():
        for end in monitor["spec"]["podMetricsEndpoints"]:
            for target in selected(objects, monitor["spec"]["selector"]):
                if end["port"] not in listening[target] or end.get("path", "/metrics") != "/metrics":
                    yield f"{name(monitor)}: {target} has no metrics at {end['port']}{end.get('path', '/metrics')}"


def _open(workload: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for item in containers(workload) for port in item.get("ports", [])}


def grace(objects: Objects) -> Iterator[str]:
    """A pod ends its requests before it is killed: preStop, DUET_DRAIN_SECONDS and --graceful-seconds with a margin."""
    for item in services(objects):
        container = serving(item)
        given = read(variables(objects, container))
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        graceful = float(argument(container, "--graceful-seconds") or 0)
        needed = pause + given.drain_seconds + graceful + MARGIN_SECONDS
        has = pod(item).get("terminationGracePeriodSeconds", 30)
        if has < needed:
            yield (
                f"{name(item)}: terminationGracePeriodSeconds: {has} is less than {needed:g}: preStop {pause}, "
                f"DUET_DRAIN_SECONDS {given.drain_seconds:g}, --graceful-seconds {graceful:g}, margin {MARGIN_SECONDS}"
            )
        if pause < ENDPOINT_SECONDS:
            yield f"{name(item)}: lifecycle.preStop.sleep.seconds: {pause} is less than {ENDPOINT_SECONDS}"
        if graceful * 1000 <= given.request_timeout_ms:
            yield f"{name(item)}: args: --graceful-seconds {graceful:g} is not above DUET_REQUEST_TIMEOUT_MS"


def selectors(objects: Objects) -> Iterator[str]:
    """Each selector selects pods of its own workload, and names the project, for the namespace may have other pods."""
    for item in workloads(objects):
        if item["kind"] == "Deployment" and selected(objects, item["spec"]["selector"]) != {name(item)}:
            yield f"{name(item)}: selector: selects {sorted(selected(objects, item['spec']['selector']))}"
        for constraint in pod(item).get("topologySpreadConstraints", []):
            if selected(objects, constraint.get("labelSelector")) != {name(item)}:
                yield f"{name(item)}: topologySpreadConstraints.labelSelector: does not select these pods alone"
    deployments = {item["metadata"]["name"] for item in workloads(objects)}
    for kind in ("Service", "PodDisruptionBudget"):
        for key, item in of_kind(objects, kind).items():
            selector = item["spec"]["selector"]
            selector = {"matchLabels": selector} if kind == "Service" else selector
            if key in deployments and selected(objects, selector) != {f"Deployment/{key}"}:
                yield f"{name(item)}: selector: selects {sorted(selected(objects, selector))}, not Deployment/{key}"
    for kind in ("NetworkPolicy", "PodMonitor"):
        for item in of_kind(objects, kind).values():
            selector = item["spec"].get("podSelector" if kind == "NetworkPolicy" else "selector", {})
            if not selects({"matchLabels": PART_OF}, selector.get("matchLabels", {})):
                yield f"{name(item)}: its selector does not name {PART_OF}"


def disruption(objects: Objects) -> Iterator[str]:
    """A drain of nodes takes one pod of a service at a time, and is not held up by pods that are never ready."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    for item in services(objects):
        found = budgets.get(item["metadata"]["name"])
        if found is None:
            yield f"{name(item)}: has no PodDisruptionBudget"
            continue
        if found["spec"].get("maxUnavailable") != 1:
            yield f"{name(found)}: maxUnavailable: {found['spec'].get('maxUnavailable')} is not 1"
        if found["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{name(found)}: unhealthyPodEvictionPolicy is not AlwaysAllow"
        rolling = item["spec"].get("strategy", {}).get("rollingUpdate")
        if rolling != {"maxUnavailable": 0, "maxSurge": 1}:
            yield f"{name(item)}: strategy.rollingUpdate: {rolling} takes pods away before new ones are ready"


def spread(objects: Objects) -> Iterator[str]:
    """Pods of one revision spread over zones and nodes."""
    for item in services(objects):
        constraints = pod(item).get("topologySpreadConstraints", [])
        keys = [constraint["topologyKey"] for constraint in constraints]
        if keys != ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]:
            yield f"{name(item)}: topologySpreadConstraints: {keys} are not zones and nodes"
        for constraint in constraints:
            if constraint.get("matchLabelKeys") != ["pod-template-hash"]:
                yield f"{name(item)}: topologySpreadConstraints.matchLabelKeys is not pod-template-hash"


def versions(objects: Objects) -> Iterator[str]:
    """Services, their pods and their deployments have the label of this version."""
    for item in services(objects):
        for where, found in (("metadata", item["metadata"].get("labels", {})), ("template", labels(item))):
            if (version := found.get("app.kubernetes.io/version")) != __version__:
                yield f"{name(item)}: {where}.labels: app.kubernetes.io/version {version} is not {__version__}"
