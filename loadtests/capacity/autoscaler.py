"""When Kubernetes adds replicas: the rules of the Horizontal Pod Autoscaler, with the settings of the components."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.bench import cores

COMPONENTS = cores.ROOT / "deploy" / "kubernetes" / "components"
FILES = {"cpu-hpa": "cpu-hpa/autoscalers.yaml", "keda": "keda/scaledobjects.yaml"}
SYNC = 15.0  # seconds between two decisions (kube-controller-manager's default)
TOLERANCE = 0.1  # a ratio within it changes nothing (default)
# The default policies for more replicas: in 15 s twice as many, or four more, whichever is more.
GROWTH, MORE = 2, 4


@dataclass(frozen=True)
class Signals:
    """What is read of the replicas that are ready.

    Attributes:
        busy: of their cores, from 0 to 1, a mean of the time since the last decision.
        backlog: seconds of work that wait, over all.
        refused: requests a second, over all.
    """

    busy: float
    backlog: float
    refused: float


@dataclass(frozen=True)
class Autoscaler:
    """The settings of a component.

    Attributes:
        name: of the component.
        least, most: replicas.
        busy: target of the share of the cores that work; None: it does not count.
        backlog: seconds of waiting work for a replica; None: they do not count.
        refused: refusals a second for a replica; None: they do not count.
    """

    name: str
    least: int
    most: int
    busy: float | None = None
    backlog: float | None = None
    refused: float | None = None

    def wanted(self, replicas: int, signals: Signals) -> int:
        """Replicas after the next decision; never fewer than now, for scaling down waits for minutes."""
        wanted = replicas
        if self.busy is not None:
            ratio = signals.busy / self.busy
            if ratio > 1 + TOLERANCE:
                wanted = max(wanted, math.ceil(replicas * ratio))
        for target, value in ((self.backlog, signals.backlog), (self.refused, signals.refused)):
            if target is not None and value / target > replicas * (1 + TOLERANCE):
                wanted = max(wanted, math.ceil(value / target))
        return min(wanted, max(GROWTH * replicas, replicas + MORE))


def read(name: str, service: str = "duet-classification") -> Autoscaler:
    """The settings for a service in the component of that name."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((COMPONENTS / FILES[name]).read_text()))
    (found,) = [document["spec"] for document in documents if document["metadata"]["name"] == service]
    if name == "cpu-hpa":
        (metric,) = found["metrics"]
        busy = metric["resource"]["target"]["averageUtilization"] / 100
        return Autoscaler(name, found["minReplicas"], found["maxReplicas"], busy=busy)
    backlog, refused = (float(trigger["metadata"]["threshold"]) for trigger in found["triggers"])
    return Autoscaler(name, found["minReplicaCount"], found["maxReplicaCount"], backlog=backlog, refused=refused)


def known() -> list[str]:
    """The names of the components."""
    return [name for name in FILES if Path(COMPONENTS, FILES[name]).exists()]
