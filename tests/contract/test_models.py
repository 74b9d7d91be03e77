"""`/models`: what is served, and its files, which nobody can leave."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def client(allinone_url: str) -> Any:
    with httpx.Client(base_url=allinone_url, timeout=60) as client:
        yield client


def test_every_model_is_listed_with_what_it_can_do(client: httpx.Client) -> None:
    models = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert models.keys() == {"digits-cnn", "digits-vae", "digits-gan", "digits-scorer"}
    assert {model["state"] for model in models.values()} == {"served"}
    assert models["digits-gan"]["operations"] == ["decode", "discriminate"]


def test_one_model_shows_its_manifest(client: httpx.Client) -> None:
    about = client.get("/models/digits-cnn").json()
    assert client.get(f"/models/digits-cnn:{about['version']}").json() == about
    assert about["manifest"]["digest"] == about["digest"]
    assert about["manifest"]["task"] == "classification"


def test_its_card_and_pictures_are_there_by_their_hash(client: httpx.Client) -> None:
    files = client.get("/models/digits-vae").json()["files"]
    assert {"card.md", "samples.png"} <= files.keys()
    for name, digest in files.items():
        answer = client.get(f"/models/digits-vae/files/{name}")
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest() == digest
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["content-type"] == (
            "image/png" if name.endswith("png") else "text/markdown; charset=utf-8"
        )
        again = client.get(f"/models/digits-vae/files/{name}", headers={"If-None-Match": f'"{digest}"'})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/models/digits-vae/files/manifest.json").json()["name"] == "digits-vae"


@pytest.mark.parametrize(
    "path",
    [
        "/models/none",
        "/models/digits-cnn:0",
        "/models/digits-cnn/files",
        "/models/digits-cnn/files/",
        "/models/digits-cnn/files/none.png",
        "/models/digits-cnn/files/classify.onnx",
        "/models/digits-cnn/files/../manifest.json",
        "/models/digits-cnn/files/%2e%2e/%2e%2e/digits-gan/latest",
        "/models/digits-cnn/files/..%2fmanifest.json",
        "/models/digits-cnn/files//etc/passwd",
        "/models/digits-cnn/other",
    ],
)
def test_nothing_else_is_found(client: httpx.Client, path: str) -> None:
    request = client.build_request("GET", "/models")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = client.send(request)
    assert answer.status_code == 404, answer.text
    assert answer.json()["type"] in ("urn:duet:problem:unknown-model", "urn:duet:problem:unknown-route")


def test_it_is_only_read(client: httpx.Client) -> None:
    answer = client.post("/models/digits-cnn")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    metrics = client.get("/metrics").text
    assert 'route="/models/{model}"' in metrics
    assert "digits-cnn/files" not in metrics
