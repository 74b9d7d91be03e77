"""`duet serve`: start a service in the foreground."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from services.commands.models import explained
from services.inference import registry
from services.inference.bundle import Task


class Service(StrEnum):
    """What can be served."""

    allinone = "allinone"
    generation = "generation"
    classification = "classification"
    anomaly = "anomaly"


TASKS: dict[Service, tuple[Task, ...]] = {
    Service.allinone: ("generation", "classification", "anomaly"),
    Service.generation: ("generation",),
    Service.classification: ("classification",),
    Service.anomaly: ("anomaly",),
}
TARGETS = {
    Service.allinone: "services.allinone:AllInOne",
    Service.generation: "services.generation:Generation",
    Service.classification: "services.classification:Classification",
    Service.anomaly: "services.anomaly:Anomaly",
}


def serve(
    service: Annotated[Service, typer.Argument(help="Which service; allinone is all three in one process.")] = (
        Service.allinone
    ),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 3000,
    models: Annotated[
        str | None, typer.Option(help="Models to serve, as DUET_MODELS: NAME or NAME:VERSION, comma-separated.")
    ] = None,
) -> None:
    """Serve the models in the store over HTTP until Ctrl-C; a store without any gets Duet's reference models first.

    Settings come from the environment (DUET_REDIS_URL and so on; the README lists them all). The service answers
    /readyz with 200 once every model is verified and warm, and with 503 and the reason until then.
    """
    if models is not None:
        os.environ["DUET_MODELS"] = models
    with explained():
        for entry in registry.bring_along(TASKS[service]):
            message = f"the store had no model for {entry.task}: brought along {entry.tag}"
            Console().print(message, highlight=False, soft_wrap=True)
    command = [sys.executable, "-m", "bentoml", "serve", TARGETS[service], "--host", host, "--port", str(port)]
    os.execv(sys.executable, command)  # noqa: S606  # the server takes this process's place, its signals and exit status
