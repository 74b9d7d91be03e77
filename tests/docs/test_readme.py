"""README and code say the same: settings, routes, metrics, errors, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from services import errors
from services.allinone import AllInOne
from services.errors import DuetError
from services.protocol.guard import DRIFT, PROBES
from services.settings import Settings
from services.telemetry import metrics
from training.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, headers left out."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in ("setting", "metric", "route", "status")]


def default(name: str) -> str:
    value = Settings.model_fields[name].default
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    return f"`{value}`" if value != "" else "empty"


def test_every_setting_is_described_with_its_default() -> None:
    documented = {row[0]: row[1:] for row in rows("Settings")}
    expected = {
        f"`DUET_{name.upper()}`": [default(name), info.description] for name, info in Settings.model_fields.items()
    }
    assert documented == expected


def test_every_metric_is_described() -> None:
    families = {family.name: (family.type, family.documentation) for family in REGISTRY.collect()}
    own = {name: about for name, about in families.items() if name.startswith("duet_")}
    assert metrics.exposition()[0]
    expected = {
        f"`{name}_total`" if kind == "counter" else f"`{name}`": [kind, text] for name, (kind, text) in own.items()
    }
    assert {row[0]: row[1:] for row in rows("Metrics")} == expected


def test_every_problem_type_is_described() -> None:
    documented = {(row[0], row[1]) for row in rows("Answers") if row[0].isdigit()}
    catalogue = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, DuetError)]
    assert documented == {(str(error.status), error.slug) for error in catalogue}


def test_every_route_is_described() -> None:
    documented = set(re.findall(r"`(?:POST|GET) (/\w+)`", section("Answers")))
    native = {method.route for method in AllInOne.apis.values()}
    assert documented == native | {DRIFT} | PROBES - {"/healthz"}


def test_every_command_is_named() -> None:
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    commands = [command for command in app.registered_commands if command.callback]
    names = [command.name or command.callback.__name__.replace("_", "-") for command in commands if command.callback]
    for name in names:
        assert f"duet {name}" in README, name
    models = groups["models"]
    for command in models.registered_commands:
        assert command.callback
        name = command.name or command.callback.__name__
        assert re.search(rf"duet models .*\b{name}\b", README), name


RESULTS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs" / "results").glob("*.md"))]


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", *RESULTS])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?: \"[^\"]*\")?\)", (ROOT / page).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


def test_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [
        path.name for half in ("services",) for path in (ROOT / half).iterdir() if (path / "__init__.py").exists()
    ]
    assert [name for name in folders if f"{name}/" not in text] == []
