"""`duet serve`: its page of help, and what it refuses. That it serves, the server tests show."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from services.commands.serve import TARGETS, Service, serve
from services.inference import registry
from services.inference.bundle import load
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


@pytest.mark.parametrize("arguments", [("translation",), ("--port", "0"), ("--port", "65536"), ("--port", "http"), ("--graceful-seconds", "0")])
def test_what_cannot_be_served_is_refused(arguments: tuple[str, ...]) -> None:
    assert duet_serve(*arguments).exit_code == 2


@pytest.mark.parametrize("service", Service)
def test_every_service_has_a_target_that_exists(service: Service) -> None:
    module, _, name = TARGETS[service].partition(":")
    assert getattr(importlib.import_module(module), name).name == service


def test_the_server_takes_the_place_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUET_MODELS", raising=False)
    monkeypatch.setitem(os.environ, "DUET_MODELS", "to be replaced")
    calls: list[list[str]] = []
    monkeypatch.setattr("services.commands.serve.become_server", calls.append)
    address = ("--host", "0.0.0.0", "--port", "4000")
    result = duet_serve("anomaly", *address, "--models", "a,b:1", "--graceful-seconds", "20")
    assert result.exit_code == 0
    assert duet_serve("anomaly", *address).exit_code == 0
    assert calls == [
        ["services.anomaly:Anomaly", *address, "--timeout-graceful-shutdown", "20"],
        ["services.anomaly:Anomaly", *address],
    ]
    assert Settings().models == "a,b:1"


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.commands.serve.become_server", lambda arguments: None)


def test_an_empty_store_gets_the_reference_models(empty_store: Path, no_server: None) -> None:
    result = duet_serve("classification")
    assert result.exit_code == 0
    stored = registry.entries()
    assert {entry.task for entry in stored} == {"classification"}
    assert all(
        f"the store had no model for classification: brought along {entry.tag}" in result.stdout for entry in stored
    )
    assert "brought along" not in duet_serve("classification").stdout, "once"


def test_reference_models_of_another_task_come_when_they_are_wanted(empty_store: Path, no_server: None) -> None:
    duet_serve("classification")
    assert "brought along mnist-gan" in duet_serve("generation").stdout
    assert {entry.task for entry in registry.entries()} == {"classification", "generation"}


def test_a_store_with_a_model_of_ones_own_is_left_alone(empty_store: Path, no_server: None, make_bundle: Any) -> None:
    own = registry.store(make_bundle())
    assert "brought along" not in duet_serve("allinone").stdout
    assert registry.entries() == [own]


@pytest.mark.parametrize(
    "manifest", sorted(registry.REFERENCE.glob("*/manifest.json")), ids=lambda path: path.parent.name
)
def test_a_reference_model_verifies_and_is_small(manifest: Path) -> None:
    bundle = load(manifest.parent)
    assert bundle.name == manifest.parent.name
    assert bundle.manifest.recipe == ("classic" if bundle.name == "mnist-vae" else "reference")
    graphs = [bundle.manifest.files[graph.file].bytes for graph in bundle.manifest.graphs.values()]
    limits = {"cnn": 1_000_000, "vae": 4_000_000, "cvae": 4_000_000, "gan": 4_000_000, "scorer": 6_000_000}
    assert max(graphs) <= limits[bundle.manifest.network]
    listed = {*bundle.manifest.files, "manifest.json"}
    assert {str(path.relative_to(manifest.parent)) for path in manifest.parent.rglob("*") if path.is_file()} == listed
