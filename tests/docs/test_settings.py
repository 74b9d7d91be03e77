"""Settings: the reference page and the code have the same, and pages name no other variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.settings import Settings, TraceSettings
from tests.docs.pages import PAGES, REFERENCE, ROOT, name, rows, section

PAGE = (REFERENCE / "settings.md").read_text()
VARIABLE = re.compile(r"DUET_[A-Z_]*[A-Z]")
OF_SERVICES = {f"DUET_{field.upper()}" for field in Settings.model_fields}
OF_TRAINING = {
    variable for path in (ROOT / "training").rglob("*.py") for variable in VARIABLE.findall(path.read_text())
}


def default(field: str) -> str:
    value = Settings.model_fields[field].default
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    return f"`{value}`" if value != "" else "empty"


def test_every_setting_is_described_with_its_default() -> None:
    documented = {row[0]: row[1:] for row in rows(section(PAGE, "Of the services"))}
    expected = {
        f"`DUET_{field.upper()}`": [default(field), info.description] for field, info in Settings.model_fields.items()
    }
    assert documented == expected


def test_every_variable_of_traces_is_described_with_its_default() -> None:
    documented = {row[0]: row[1:] for row in rows(section(PAGE, "Of traces"))}
    assert documented == {
        f"`OTEL_{field.upper()}`": [f"`{info.default}`" if info.default != "" else "empty", info.description]
        for field, info in TraceSettings.model_fields.items()
    }


def test_every_variable_of_training_is_described() -> None:
    documented = {row[0].strip("`") for row in rows(section(PAGE, "Of training"))}
    assert documented == OF_TRAINING - OF_SERVICES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_name_only_variables_that_there_are(page: Path) -> None:
    assert set(VARIABLE.findall(page.read_text())) <= OF_SERVICES | OF_TRAINING
