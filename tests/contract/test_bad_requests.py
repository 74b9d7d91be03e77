"""Bad requests against a real server: each is refused as documented, says why, and harms nobody after it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.bad_requests.bodies import everywhere
from tests.contract.bad_requests.case import GOOD, LABEL, ROUTES, Case
from tests.contract.bad_requests.fields import OWN
from tests.contract.bad_requests.images import with_images

pytestmark = pytest.mark.server

# Traces, Python's names of types and values, addresses and paths.
PYTHON = re.compile(
    r"Traceback|\.py\b|<class|<_io| at 0x|\w+Error\b|\w+Exception\b|\w+Warning\b"
    r"|\b(None|True|False|NoneType|dict|bool|int|str|float|tuple|ndarray|numpy|pydantic|site-packages)\b"
)


def cases(route: str) -> list[Case]:
    images = () if route == "/generate" else with_images(route)
    return [*everywhere(route), *images, *OWN[route]()]


ALL = {route: cases(route) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES)
def test_at_least_twenty_bad_requests_a_route(route: str) -> None:
    names = [case.name for case in ALL[route]]
    assert len(names) >= 20
    assert len(set(names)) == len(names), "a name twice"
    assert len(set(map(repr, (replace(case, name="") for case in ALL[route])))) == len(names), "a request twice"


def test_the_good_requests_are_answered_right(server: Any) -> None:
    answers = {route: server.answers(route, GOOD[route]) for route in ROUTES}
    assert answers["/classify"]["predictions"][0]["label"] == str(LABEL)
    assert len(answers["/generate"]["images"]) == 2
    first, middle, last = answers["/interpolate"]["images"]
    assert first == middle == last == answers["/reconstruct"]["images"][0]
    assert answers["/reconstruct"]["errors"][0] < 0.05
    assert 0 < answers["/score"]["scores"][0]["p_value"] <= 1


@pytest.mark.parametrize(
    ("route", "case"), [pytest.param(route, case, id=f"{route}-{case.name}") for route in ROUTES for case in ALL[route]]
)
def test_a_bad_request_is_refused_and_harms_nobody(server: Any, route: str, case: Case) -> None:
    # By the whole URL: a client that joins it with a base would tidy the path.
    url = server.url + (case.path or route)
    response = server.client.request(case.method, url, content=case.content(), headers=case.headers)
    assert response.status_code == case.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    assert response.headers.get("allow") == case.allow
    if case.method != "HEAD":
        problem = response.json()
        assert problem["status"] == case.status
        assert problem["type"].startswith("urn:duet:problem:")
        assert problem["title"]
        assert problem["detail"] == problem["error"]
        assert problem.get("field") == case.field
        assert case.field is None or case.field in problem["detail"]
        assert not PYTHON.search(problem["detail"]), problem["detail"]
        assert len(response.content) < 2000
    server.answers(route, GOOD[route])


def test_no_bad_request_was_a_surprise(server: Any) -> None:
    """After all of the above: each was refused by a rule, none by the net below the rules."""
    assert server.surprises() == 0
