"""`duet serve`: its page of help, and what it refuses. That it serves, the server tests show."""

from __future__ import annotations

import importlib
import os

import pytest
import typer
from typer.testing import CliRunner, Result

from services.commands.serve import TARGETS, Service, serve
from services.settings import Settings

app = typer.Typer()
app.command()(serve)


def duet_serve(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})


def test_help_names_the_services_and_the_port() -> None:
    result = duet_serve("--help")
    assert result.exit_code == 0
    for text in (*Service, "--port", "--host", "127.0.0.1", "3000", "DUET_MODELS", "/readyz"):
        assert text in result.stdout


@pytest.mark.parametrize("arguments", [("translation",), ("--port", "0"), ("--port", "65536"), ("--port", "http")])
def test_what_cannot_be_served_is_refused(arguments: tuple[str, ...]) -> None:
    assert duet_serve(*arguments).exit_code == 2


@pytest.mark.parametrize("service", Service)
def test_every_service_has_a_target_that_exists(service: Service) -> None:
    module, _, name = TARGETS[service].partition(":")
    assert getattr(importlib.import_module(module), name).name == service


def test_the_server_takes_the_place_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUET_MODELS", raising=False)
    monkeypatch.setitem(os.environ, "DUET_MODELS", "to be replaced")
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: calls.append((program, arguments)))
    result = duet_serve("anomaly", "--port", "4000", "--host", "0.0.0.0", "--models", "a,b:1")
    assert result.exit_code == 0
    [(program, arguments)] = calls
    assert arguments[0] == program
    assert arguments[1:] == [
        *("-m", "bentoml", "serve", "services.anomaly:Anomaly"),
        *("--host", "0.0.0.0", "--port", "4000"),
    ]
    assert Settings().models == "a,b:1"
