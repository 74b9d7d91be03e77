"""`duet serve`: start a service in the foreground."""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from services.commands.stop import stop

if TYPE_CHECKING:
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
    service: Annotated[Service, typer.Argument(help="The service; allinone is the other three in one process.")] = (
        Service.allinone
    ),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all addresses.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 3000,
    models: Annotated[
        str | None,
        typer.Option(help="Models to serve: NAME or NAME:VERSION, comma-separated; it replaces DUET_MODELS."),
    ] = None,
    graceful_seconds: Annotated[
        int | None,
        typer.Option(
            help="Seconds that requests in flight have to complete after SIGTERM and DUET_DRAIN_SECONDS; by default "
            "as many as they need.",
            min=1,
        ),
    ] = None,
) -> None:
    """Serve the models in the store, or in DUET_BUNDLES, over HTTP until Ctrl-C.

    A store without any model gets Duet's reference models first. DUET_ variables of the environment are the other
    settings; the documentation lists them. /readyz answers 200 when every model is verified and warm, and until then
    503 with the reason.
    """
    from services.settings import read, read_traces  # noqa: PLC0415

    if models is not None:
        os.environ["DUET_MODELS"] = models
    settings, _ = read(), read_traces()  # the server reads them too, and would end with a traceback
    if settings.trusted_keys:
        from services.inference.keys import public_keys  # noqa: PLC0415

        public_keys(settings.trusted_keys, "DUET_TRUSTED_KEYS")
    _need_port(host, port)
    gc.disable()  # what is imported stays, so collections would find nothing; before the worker starts they are back
    try:
        from services.inference import registry  # noqa: PLC0415

        for entry in [] if settings.bundles else registry.install_reference_bundles(TASKS[service]):
            typer.echo(f"the store had no model for {entry.task}: brought along {entry.tag}")
        grace = [] if graceful_seconds is None else ["--timeout-graceful-shutdown", str(graceful_seconds)]
        become_server([TARGETS[service], "--host", host, "--port", str(port), *grace])
    finally:
        gc.enable()


def become_server(arguments: Sequence[str]) -> NoReturn:
    """Run `bentoml serve` in this process, which ends with its exit status.

    Starting Python anew would import a second time what reading the store has imported: more than a second.
    """
    from bentoml._internal.context import server_context  # noqa: PLC0415
    from bentoml_cli.serve import serve_command  # noqa: PLC0415

    server_context.service_type = "cli"  # as the command `bentoml` does; its log lines say it
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that leaves must not end the server
    sys.excepthook = sys.__excepthook__
    sys.exit(serve_command.main(["serve", *arguments], prog_name="bentoml"))


def _need_port(host: str, port: int) -> None:
    """End with a message if the server could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            stop(f"--port {port}: another program listens there already; end it, or give another port with --port")
        if number == errno.EACCES:
            stop(f"--port {port}: this user may not listen there; give a port above 1023 with --port")
        stop(f"--host {host}: this machine cannot listen there ({error}); give one of its own addresses with --host")
