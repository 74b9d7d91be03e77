"""The OpenAPI document: requests that are made from it get the answers that it describes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.errors import DuetError
from services.protocol.gateway import DRIFT, MODELS, PROBES
from services.protocol.openapi import document as document_of
from services.protocol.services import PROTOCOLS, routes_of
from tests.conftest import Serve, clean_environment

pytestmark = pytest.mark.server

CONFIG = Path(__file__).with_name("schemathesis.toml")
CASES = 5000  # of a service, in the nightly run
MOST = {
    "generation": 450,
    "classification": 800,
    "anomaly": 800,
    "allinone": 450,
}  # of a route: the fewer, the more routes


@pytest.fixture(scope="module")
def document(allinone_url: str) -> dict[str, Any]:
    answer = httpx.get(f"{allinone_url}/docs.json")
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()
    return content


def test_it_has_every_route(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    v2 = {path for path in document["paths"] if path.startswith("/v2")}
    models = {path for path in document["paths"] if path.startswith(MODELS)}
    assert document["paths"].keys() - v2 - models == set(routes_of(list(PROTOCOLS))) | PROBES | {DRIFT}
    assert len(v2) == 7
    assert len(models) == 3
    enum = document["components"]["parameters"]["Model"]["schema"]["enum"]
    assert {"digits-cnn", "digits-gan", "digits-scorer", "digits-vae"} <= set(enum)


def test_it_has_every_problem(document: dict[str, Any]) -> None:
    documented = {
        (slug.removeprefix("urn:duet:problem:"), schema["properties"]["status"]["const"])
        for answer in document["components"]["responses"].values()
        for schema in [answer["content"]["application/problem+json"]["schema"]]
        for slug in schema["properties"]["type"]["enum"]
    }
    assert documented == {(error.slug, error.status) for error in (DuetError, *DuetError.__subclasses__())}


def test_the_example_of_an_image_is_one(document: dict[str, Any], allinone_url: str) -> None:
    schemas = document["components"]["schemas"]
    takes = {"/classify": "ClassifyRequest", "/score": "ScoreRequest", "/reconstruct": "ReconstructRequest"}
    for route, name in takes.items():
        [example] = schemas[name]["properties"]["images"]["examples"]
        answer = httpx.post(allinone_url + route, json={"images": example}, timeout=60)
        assert answer.status_code == 200, answer.text
    assert httpx.post(f"{allinone_url}/classify", json={"images": example}).json()["predictions"][0]["label"] == "4"


def test_a_service_of_one_task_has_its_routes_alone() -> None:
    paths = document_of(routes_of(["classification"]), "classification", [], drift=False)["paths"]
    assert {"/classify", "/v2/models/{model}/infer", "/models"} <= paths.keys()
    assert paths.keys().isdisjoint({"/generate", "/score", DRIFT})


def cases(url: str, most: int, *more: str) -> int:
    """Send requests made from the document, valid and invalid ones; returns how many there were."""
    options = [
        "--checks",
        "all",
        "--phases",
        "examples,coverage,fuzzing",
        "--warnings",
        "off",
        "--max-examples",
        str(most),
    ]
    program = [
        str(Path(sys.executable).with_name("st")),
        "--config-file",
        str(CONFIG),
        "run",
        f"{url}/docs.json",
        *options,
    ]
    run = subprocess.run(program, capture_output=True, text=True, check=False, env=clean_environment())
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    found = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert found is not None, run.stdout[-2000:]
    assert found[1] == found[2]
    return int(found[1])


@pytest.mark.slow
def test_requests_that_are_made_from_it_get_the_answers_that_it_describes(serve: Serve) -> None:
    with serve("allinone") as server:  # its own: thousands of requests would be in the metrics of a shared one
        assert cases(server.url, 20, "--seed", "0") > 1000


@pytest.mark.nightly
@pytest.mark.parametrize("service", ["generation", "classification", "anomaly", "allinone"])
def test_thousands_of_requests_find_nothing(serve: Serve, service: str) -> None:
    with serve(service) as server:
        assert cases(server.url, MOST[service]) >= CASES
