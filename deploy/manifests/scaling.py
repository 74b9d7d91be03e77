"""Checks of autoscalers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from deploy.manifests.objects import Object, Objects, name, of_kind, workloads
from services import errors
from services.telemetry import metrics

METRIC = re.compile(r"\b(duet_[a-z_]+)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
OF_PROMETHEUS = {"namespace", "pod", "container", "job"}


def targets(objects: Objects) -> Iterator[str]:
    """Each autoscaler scales a deployment that there is, and no two scale the same one."""
    known = {item["metadata"]["name"] for item in workloads(objects) if item["kind"] == "Deployment"}
    scaled: dict[str, str] = {}
    for item in _autoscalers(objects):
        target = item["spec"]["scaleTargetRef"]["name"]
        if target not in known:
            yield f"{name(item)}: scaleTargetRef.name: there is no deployment {target}"
        if target in scaled:
            yield f"{name(item)}: scaleTargetRef.name: {scaled[target]} scales {target}, too"
        scaled[target] = name(item)
        least = item["spec"].get("minReplicas", item["spec"].get("minReplicaCount", 1))
        if least < 2:
            yield f"{name(item)}: {least} replica at least: a node that fails takes the service along"


def replicas(objects: Objects) -> Iterator[str]:
    """What is scaled has no `replicas`, which each `apply` would set again."""
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in _autoscalers(objects)}
    for item in workloads(objects):
        if item["metadata"]["name"] in scaled and "replicas" in item["spec"]:
            yield f"{name(item)}: replicas: {item['spec']['replicas']} is reset by each apply; leave it out"


def queries(objects: Objects) -> Iterator[str]:
    """Queries name metrics, labels, reasons, namespace and pods that there are."""
    for item in of_kind(objects, "ScaledObject").values():
        target, namespace = item["spec"]["scaleTargetRef"]["name"], item["metadata"].get("namespace")
        for trigger in item["spec"]["triggers"]:
            query = trigger.get("metadata", {}).get("query", "")
            for problem in unknown(query):
                yield f"{name(item)}: triggers.query: {problem}"
            for label, value in MATCHER.findall(query):
                if label == "namespace" and value != namespace:
                    yield f"{name(item)}: triggers.query: namespace {value} is not {namespace}"
                if label == "pod" and not re.fullmatch(value, f"{target}-5b8c9d7f6-x2x9k"):
                    yield f"{name(item)}: triggers.query: {value} matches no pod of {target}"


def unknown(query: str) -> Iterator[str]:
    """What a query names that Duet does not have."""
    for metric, matchers in METRIC.findall(query):
        labels = series().get(metric)
        if labels is None:
            yield f"there is no metric {metric}"
            continue
        for label, value in MATCHER.findall(matchers):
            if label not in labels | OF_PROMETHEUS:
                yield f"{metric} has no label {label}"
            if label == "reason" and not set(value.split("|")) <= reasons():
                yield f"{metric} has no reason {sorted(set(value.split('|')) - reasons())}"


@cache
def series() -> Mapping[str, set[str]]:
    """The labels of each series that a scrape may hold, by name."""
    found: dict[str, set[str]] = {}
    for item in vars(metrics).values():
        for family in item.describe() if hasattr(item, "describe") and not isinstance(item, type) else ():
            labels = set(getattr(item, "_labelnames", getattr(item, "_labels", ())))
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            for ending in endings:
                found[f"{family.name}{ending}"] = labels | ({"le"} if ending == "_bucket" else set())
    return found


@cache
def reasons() -> set[str]:
    """The types of problems, which are the reasons of refusals."""
    return {item.slug for item in vars(errors).values() if isinstance(item, type) and hasattr(item, "slug")}


def _autoscalers(objects: Objects) -> list[Object]:
    return [item for item in objects if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
