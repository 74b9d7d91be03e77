"""Mistakes that somebody may make in a manifest; each is made in the rendered objects of production or of a site."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from deploy.manifests.objects import Object, Objects, containers, of_kind, pod, variables
from deploy.manifests.settings import read
from deploy.manifests.sizing import MEBI, memory

Change = Callable[[Objects], None]
SERVICE = "duet-classification"
MISTAKES: dict[str, tuple[str, tuple[str, ...], Change]] = {}  # what -> the check that finds it, a site, the change


def mistake(what: str, check: str, *site: str) -> Callable[[Change], Change]:
    """`site`: an overlay and components; production if left out."""

    def keep(change: Change) -> Change:
        MISTAKES[what] = (check, site or ("overlays/production",), change)
        return change

    return keep


def deployment(objects: Objects, name: str = SERVICE) -> Object:
    return of_kind(objects, "Deployment")[name]


def container(objects: Objects, name: str = SERVICE) -> Object:
    first: Object = pod(deployment(objects, name))["containers"][0]
    return first


def replace(arguments: list[Any], old: Any, new: Any) -> None:
    arguments[arguments.index(old)] = new


def variable(objects: Objects, name: str, value: str) -> None:
    container(objects)["env"].append({"name": name, "value": value})


@mistake("the container listens on another port than its Service expects", "ports")
def _(objects: Objects) -> None:
    container(objects)["ports"][0]["containerPort"] = 3001


@mistake("`--port` differs from the port of the container", "ports")
def _(objects: Objects) -> None:
    replace(container(objects)["args"], "3000", "8080")


@mistake("the service listens on 127.0.0.1", "ports")
def _(objects: Objects) -> None:
    replace(container(objects)["args"], "0.0.0.0", "127.0.0.1")


@mistake("a deployment serves the task of another one", "ports")
def _(objects: Objects) -> None:
    container(objects)["args"][0] = "anomaly"


@mistake("a probe asks a port that has no such name", "ports")
def _(objects: Objects) -> None:
    container(objects)["livenessProbe"]["httpGet"]["port"] = "web"


@mistake("the monitor scrapes another path", "ports")
def _(objects: Objects) -> None:
    of_kind(objects, "PodMonitor")["duet"]["spec"]["podMetricsEndpoints"][0]["path"] = "/prometheus"


@mistake("the start-up probe asks `/readyz`, so a bundle that does not verify is restarted", "probes")
def _(objects: Objects) -> None:
    container(objects)["startupProbe"]["httpGet"]["path"] = "/readyz"


@mistake("the liveness probe gives up after 15 s", "probes")
def _(objects: Objects) -> None:
    container(objects)["livenessProbe"]["periodSeconds"] = 5


@mistake("a Service selects the pods of all services", "selectors")
def _(objects: Objects) -> None:
    of_kind(objects, "Service")[SERVICE]["spec"]["selector"] = {"app.kubernetes.io/part-of": "duet"}


@mistake("the stable Service selects the canary's pods, too", "selectors", "overlays/canary")
def _(objects: Objects) -> None:
    del of_kind(objects, "Service")[SERVICE]["spec"]["selector"]["app.kubernetes.io/instance"]


@mistake("a setting has a name that there is not", "settings")
def _(objects: Objects) -> None:
    variable(objects, "DUET_REDIS_TIMEOUT", "50")


@mistake("a setting has a value that is not allowed", "settings")
def _(objects: Objects) -> None:
    variable(objects, "DUET_READINESS", "some")


@mistake("service links are on, so that Kubernetes sets variables that look like settings", "settings")
def _(objects: Objects) -> None:
    del pod(deployment(objects))["enableServiceLinks"]


@mistake("the time to end is one second too short", "grace")
def _(objects: Objects) -> None:
    pod(deployment(objects))["terminationGracePeriodSeconds"] -= 1


@mistake("the drain is longer, and the time to end is not", "grace")
def _(objects: Objects) -> None:
    variable(objects, "DUET_DRAIN_SECONDS", "6")


@mistake("there is no preStop", "grace")
def _(objects: Objects) -> None:
    del container(objects)["lifecycle"]


@mistake("a request may take longer than the server waits at its end", "grace")
def _(objects: Objects) -> None:
    variable(objects, "DUET_REQUEST_TIMEOUT_MS", "20000")


@mistake("the security context of a container is dropped", "security")
def _(objects: Objects) -> None:
    del container(objects)["securityContext"]


@mistake("a capability is added", "security")
def _(objects: Objects) -> None:
    container(objects)["securityContext"]["capabilities"]["add"] = ["NET_BIND_SERVICE"]


@mistake("pods run as root", "security")
def _(objects: Objects) -> None:
    pod(deployment(objects))["securityContext"] |= {"runAsUser": 0, "runAsNonRoot": False}


@mistake("pods get a token of the API server", "security")
def _(objects: Objects) -> None:
    del pod(deployment(objects))["automountServiceAccountToken"]


@mistake("the namespace does not demand the restricted standard", "security")
def _(objects: Objects) -> None:
    of_kind(objects, "Namespace")["duet"]["metadata"]["labels"] = {}


@mistake("the component openshift is not the last one", "security", "overlays/production", "openshift")
def _(objects: Objects) -> None:
    pod(deployment(objects, "duet-redis"))["securityContext"]["runAsUser"] = 10001


@mistake("an object has no namespace", "namespace")
def _(objects: Objects) -> None:
    del of_kind(objects, "Service")[SERVICE]["metadata"]["namespace"]


@mistake("an image has a tag in place of a digest", "images")
def _(objects: Objects) -> None:
    container(objects)["image"] = "registry.example.com/duet-classification:0.1.0"


@mistake("a tag names the bundles of an image volume", "images", "base", "models-image-volume")
def _(objects: Objects) -> None:
    (volume,) = (item for item in pod(deployment(objects))["volumes"] if "image" in item)
    volume["image"]["reference"] = "registry.example.com/models:latest"


@mistake("a tag names the bundle that is pulled", "images", "base", "models-init-container")
def _(objects: Objects) -> None:
    containers(deployment(objects))[0]["args"][2] = "oci://registry.example.com/models:latest"


@mistake("models come from an image and from a volume", "models", "base", "models-image-volume")
def _(objects: Objects) -> None:
    deployment(objects)["spec"]["template"]["metadata"]["annotations"]["duet/models"] = "packed"


@mistake("the service may write to its bundles", "models", "base", "models-init-container")
def _(objects: Objects) -> None:
    for mount in container(objects)["volumeMounts"]:
        mount.pop("readOnly", None)


@mistake("signatures are demanded, and no key is there", "keys")
def _(objects: Objects) -> None:
    for item in of_kind(objects, "ConfigMap").values():
        if "trusted-keys" in item["metadata"]["name"]:
            item["data"] = {"README": "keys come later"}


@mistake("the ConfigMap of the settings has another name", "references")
def _(objects: Objects) -> None:
    container(objects)["envFrom"][0]["configMapRef"]["name"] = "duet-setting"


@mistake("a password is used before it is set", "variables")
def _(objects: Objects) -> None:
    container(objects)["env"].reverse()


@mistake("the memory limit is one MiB too small", "memory")
def _(objects: Objects) -> None:
    least = math.ceil(sum(memory(read(variables(objects, container(objects)))).values()) / MEBI)
    for field in ("requests", "limits"):
        container(objects)["resources"][field]["memory"] = f"{least - 1}Mi"


@mistake("more bodies are let in, and the memory limit stays", "memory")
def _(objects: Objects) -> None:
    variable(objects, "DUET_BODIES_BYTES", str(2**30))


@mistake("less memory is requested than may be used", "memory")
def _(objects: Objects) -> None:
    container(objects)["resources"]["requests"]["memory"] = "256Mi"


@mistake("a volume grows beyond the pod's storage", "storage")
def _(objects: Objects) -> None:
    for volume in pod(deployment(objects))["volumes"]:
        if "emptyDir" in volume:
            volume["emptyDir"]["sizeLimit"] = "1Gi"


@mistake("a volume has no bound", "storage")
def _(objects: Objects) -> None:
    for volume in pod(deployment(objects))["volumes"]:
        if "emptyDir" in volume:
            volume["emptyDir"] = {}


@mistake("threads are a number of their own, not the CPUs that are requested", "threads")
def _(objects: Objects) -> None:
    (threads,) = (item for item in container(objects)["env"] if item["name"] == "DUET_THREADS")
    threads.pop("valueFrom")
    threads["value"] = "0"


@mistake("a deployment that is scaled has `replicas`", "replicas")
def _(objects: Objects) -> None:
    deployment(objects)["spec"]["replicas"] = 2


@mistake("an autoscaler scales what there is not", "autoscalers")
def _(objects: Objects) -> None:
    of_kind(objects, "HorizontalPodAutoscaler")[SERVICE]["spec"]["scaleTargetRef"]["name"] = "duet-classifier"


@mistake("two autoscalers scale one deployment", "autoscalers", "base", "cpu-hpa")
def _(objects: Objects) -> None:
    scaled = of_kind(objects, "HorizontalPodAutoscaler")[SERVICE]
    objects.append(scaled | {"metadata": scaled["metadata"] | {"name": "second"}})


@mistake("a query names a metric that there is not", "queries", "base", "keda")
def _(objects: Objects) -> None:
    trigger = of_kind(objects, "ScaledObject")[SERVICE]["spec"]["triggers"][0]["metadata"]
    trigger["query"] = trigger["query"].replace("duet_queue_items", "duet_queue_length")


@mistake("a query counts refusals of a type that there is not", "queries", "base", "keda")
def _(objects: Objects) -> None:
    trigger = of_kind(objects, "ScaledObject")[SERVICE]["spec"]["triggers"][1]["metadata"]
    trigger["query"] = trigger["query"].replace("queue-full", "overload")


@mistake("a query looks into another namespace", "queries", "base", "keda")
def _(objects: Objects) -> None:
    of_kind(objects, "ScaledObject")[SERVICE]["metadata"]["namespace"] = "elsewhere"


@mistake("pods that are never ready hold up the drain of a node", "disruption")
def _(objects: Objects) -> None:
    del of_kind(objects, "PodDisruptionBudget")[SERVICE]["spec"]["unhealthyPodEvictionPolicy"]


@mistake("a roll-out takes pods away before new ones are ready", "disruption")
def _(objects: Objects) -> None:
    deployment(objects)["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": "25%", "maxSurge": "25%"}


@mistake("pods of old revisions count for the spread", "spread")
def _(objects: Objects) -> None:
    del pod(deployment(objects))["topologySpreadConstraints"][0]["matchLabelKeys"]


@mistake("the label of the version is an old one", "versions")
def _(objects: Objects) -> None:
    deployment(objects)["metadata"]["labels"]["app.kubernetes.io/version"] = "0.0.9"
