"""The table of services: what each task answers, in both protocols.

A new task is one more row, with its operations in `services/tasks`, its model in `services/inference` and its native
routes in `services/protocol/native`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.inference.bundle import Task
from services.protocol.native import anomaly, classification, generation
from services.protocol.native.routes import Route
from services.protocol.v2 import signatures
from services.protocol.v2.signatures import Signature


@dataclass(frozen=True)
class TaskProtocols:
    """How requests for one task come in.

    Attributes:
        routes: of the native protocol.
        signature: of a model in V2.
        pages: further GET paths.
    """

    routes: tuple[Route[Any], ...]
    signature: Callable[[Any], Signature]
    pages: tuple[str, ...] = ()


PROTOCOLS: dict[Task, TaskProtocols] = {
    "generation": TaskProtocols(generation.ROUTES, signatures.of_generator),
    "classification": TaskProtocols(classification.ROUTES, signatures.of_classifier),
    "anomaly": TaskProtocols(anomaly.ROUTES, signatures.of_scorer, pages=("/drift",)),
}


def routes_of(tasks: Sequence[Task]) -> dict[str, Route[Any]]:
    """The native routes of some tasks, by path."""
    return {route.path: route for task in tasks for route in PROTOCOLS[task].routes}
