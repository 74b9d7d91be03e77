"""Routes and fields: the reference pages and the services have the same."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest
from pydantic import BaseModel

from services import anomaly, classification, generation
from services.allinone import AllInOne
from services.protocol.guard import DRIFT, PROBES
from tests.docs.pages import REFERENCE, rows, section

ROUTES = (REFERENCE / "routes.md").read_text()
FIELDS = (REFERENCE / "fields.md").read_text()
HANDLERS = {
    "classify": classification.classify,
    "generate": generation.generate,
    "interpolate": generation.interpolate,
    "reconstruct": generation.reconstruct,
    "redraw": generation.redraw,
    "score": anomaly.score,
}


def fields(route: str) -> set[str]:
    """The request fields of a native route, by the names that callers send."""
    schema: type[BaseModel] = get_type_hints(HANDLERS[route])["request"]
    return {info.alias or name for name, info in schema.model_fields.items()}


def test_every_route_is_described() -> None:
    documented = set(re.findall(r"`(?:POST|GET) (/\w+)`", ROUTES))
    native = {method.route for method in AllInOne.apis.values()}
    assert documented == native | {DRIFT} | PROBES - {"/healthz"}
    assert {f"/{route}" for route in HANDLERS} == native


@pytest.mark.parametrize("route", HANDLERS)
def test_every_route_is_listed_with_its_fields(route: str) -> None:
    row = next(row for row in rows(ROUTES) if row[0] == f"`POST /{route}`")
    assert set(re.split(r", | or ", row[2])) == fields(route)


@pytest.mark.parametrize("route", HANDLERS)
def test_every_field_is_described(route: str) -> None:
    text = section(FIELDS, "All routes") + section(FIELDS, route.capitalize())
    assert {field for field in fields(route) if f"`{field}`" not in text} == set()
