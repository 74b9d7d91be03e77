"""Rendered objects, and what is often asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]
Objects: TypeAlias = list[Object]

PART_OF = {"app.kubernetes.io/part-of": "duet"}
COMPONENT = "app.kubernetes.io/component"
SERVE = "serve"  # the container of a service
UNITS = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "kb": 2**10,
    "mb": 2**20,
    "gb": 2**30,
}
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def of_kind(objects: Objects, kind: str) -> dict[str, Object]:
    """By name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def workloads(objects: Objects) -> Objects:
    """What makes pods."""
    return [item for item in objects if item["kind"] in ("Deployment", "Job")]


def services(objects: Objects) -> Objects:
    """The deployments of Duet's services, the canary's too."""
    return [item for item in objects if item["kind"] == "Deployment" and labels(item).get(COMPONENT) == "service"]


def name(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"


def labels(workload: Object) -> Mapping[str, str]:
    """Of its pods."""
    found: Mapping[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def pod(workload: Object) -> Object:
    found: Object = workload["spec"]["template"]["spec"]
    return found


def containers(workload: Object) -> Objects:
    """The initial ones too."""
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def serving(service: Object) -> Object:
    """The container that serves; an empty one where it has another name, which its checks then report."""
    return next((item for item in pod(service)["containers"] if item["name"] == SERVE), {"name": SERVE})


def selects(selector: Mapping[str, Any] | None, these: Mapping[str, str]) -> bool:
    """Whether a label selector, of labels only, selects; an empty one selects everything, and none nothing."""
    return selector is not None and selector.get("matchLabels", {}).items() <= these.items()


def selected(objects: Objects, selector: Mapping[str, Any] | None) -> set[str]:
    """The names of the workloads whose pods a label selector selects."""
    return {name(item) for item in workloads(objects) if selects(selector, labels(item))}


def argument(container: Object, option: str) -> str | None:
    """What follows an option in the arguments of a container."""
    given = container.get("args", [])
    return next((str(value) for key, value in pairwise(given) if key == option), None)


def in_bytes(quantity: str | int) -> int:
    """A quantity of Kubernetes, or of Redis, in bytes."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return int(number) * UNITS.get(unit, 1)


def in_seconds(duration: str) -> float:
    """A duration of the Gateway API, such as 1m30s."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))


def variables(objects: Objects, container: Object) -> dict[str, str | None]:
    """The variables of a container by name; None where the value is not in the objects, such as that of a Secret."""
    found: dict[str, str | None] = {}
    maps = of_kind(objects, "ConfigMap")
    for source in container.get("envFrom", []):
        reference = source.get("configMapRef", {}).get("name")
        found |= maps.get(reference, {}).get("data") or {}
    for variable in container.get("env", []):
        found[variable["name"]] = variable.get("value")
    return found


def volumes(workload: Object) -> dict[str, Object]:
    return {volume["name"]: volume for volume in pod(workload).get("volumes", [])}


def images(objects: Objects) -> Iterator[tuple[str, str]]:
    """Where an image is named, and the image: of containers and of volumes."""
    for item in workloads(objects):
        for container in containers(item):
            yield f"{name(item)}: containers[{container['name']}].image", container["image"]
            for value in container.get("args", []):
                if str(value).startswith("oci://"):
                    yield f"{name(item)}: containers[{container['name']}].args", str(value)
        for volume in volumes(item).values():
            if "image" in volume:
                yield f"{name(item)}: volumes[{volume['name']}].image.reference", volume["image"]["reference"]
