"""Routes and fields: the reference pages and the services have the same."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from services.protocol.gateway import DRIFT, MODELS, PROBES
from services.protocol.services import PROTOCOLS, routes_of
from tests.docs.pages import REFERENCE, rows, section

ROUTES = (REFERENCE / "routes.md").read_text()
FIELDS = (REFERENCE / "fields.md").read_text()
HANDLERS = {path.strip("/"): route for path, route in routes_of(list(PROTOCOLS)).items()}


def fields(route: str) -> set[str]:
    """The request fields of a native route, by the names that callers send."""
    schema: type[BaseModel] = HANDLERS[route].schema
    return {info.alias or name for name, info in schema.model_fields.items()}


def test_every_route_is_described() -> None:
    documented = set(re.findall(r"`(?:POST|GET) (/\w+)`", ROUTES))
    native = {f"/{route}" for route in HANDLERS}
    assert documented == native | {DRIFT, MODELS} | PROBES - {"/healthz"}


@pytest.mark.parametrize("route", HANDLERS)
def test_every_route_is_listed_with_its_fields(route: str) -> None:
    row = next(row for row in rows(ROUTES) if row[0] == f"`POST /{route}`")
    assert set(re.split(r", | or ", row[2])) == fields(route)


@pytest.mark.parametrize("route", HANDLERS)
def test_every_field_is_described(route: str) -> None:
    text = section(FIELDS, "All routes") + section(FIELDS, route.capitalize())
    assert {field for field in fields(route) if f"`{field}`" not in text} == set()
