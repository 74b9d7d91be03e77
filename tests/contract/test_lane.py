"""Which way a request takes changes how fast an answer comes, and nothing else.

One server answers directly where it can, another always through ASGI, a third through BentoML's layers, too.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from training.data.digits import load_digits

pytestmark = [pytest.mark.server, pytest.mark.slow]

DIGITS = load_digits().test.images[:3]
PIXELS = DIGITS[:, 0].tolist()
OWN = {"date", "server-timing", "x-request-id", "server"}  # headers that differ, from answer to answer or by design
PICKLE = {"content": b"\x80\x04.", "headers": {"Content-Type": "application/vnd.bentoml+pickle"}}


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "PNG")
    return stream.getvalue()


def v2(**document: Any) -> dict[str, Any]:
    data = {"name": "images", "datatype": "UINT8", "shape": [3, 1, 28, 28], "data": DIGITS.ravel().tolist()}
    return {"json": {"inputs": [data]} | document}


def upload(*files: bytes, **fields: str) -> dict[str, Any]:
    return {"files": [("images", (f"{i}.png", file, "image/png")) for i, file in enumerate(files)], "data": fields}


def v2_binary() -> dict[str, Any]:
    size = {"binary_data_size": DIGITS.nbytes}
    spec = {"name": "images", "datatype": "UINT8", "shape": DIGITS.shape, "parameters": size}
    head = json.dumps({"inputs": [spec], "id": "ä", "parameters": {"binary_data_output": True}}).encode()
    return {"content": head + DIGITS.tobytes(), "headers": {"Inference-Header-Content-Length": str(len(head))}}


FILES = [png(image) for image in DIGITS]
TEXTS = [base64.b64encode(file).decode() for file in FILES]
CNN, SCORER, VAE = (f"/v2/models/digits-{name}/infer" for name in ("cnn", "scorer", "vae"))
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classify pixels": ("POST", "/classify", {"json": {"images": PIXELS, "top_k": 10}}),
    "classify base64": ("POST", "/classify", {"json": {"images": TEXTS}}),
    "classify files": ("POST", "/classify", upload(*FILES, top_k="2")),
    "score": ("POST", "/score", {"json": {"images": PIXELS, "alpha": 0.2}}),
    "score with a map": ("POST", "/score", {"json": {"images": PIXELS, "heatmap": True}}),
    "generate": ("POST", "/generate", {"json": {"count": 4, "seed": 7}}),
    "generate arrays by class": (
        "POST",
        "/generate",
        {"json": {"count": 2, "seed": 7, "class": 3, "format": "array", "model": "digits-gan"}},
    ),
    "generate a grid": ("POST", "/generate", {"json": {"count": 4, "seed": 7, "format": "grid"}}),
    "generate in lines": ("POST", "/generate", {"json": {"count": 100, "seed": 7, "stream": True}}),
    "generate too many lines": ("POST", "/generate", {"json": {"count": 2**16 + 1, "stream": True}}),
    "interpolate": ("POST", "/interpolate", {"json": {"seeds": [1, 2], "steps": 3}}),
    "interpolate images": ("POST", "/interpolate", {"json": {"images": TEXTS[:2], "steps": 3}}),
    "reconstruct": ("POST", "/reconstruct", {"json": {"images": PIXELS}}),
    "reconstruct files": ("POST", "/reconstruct", upload(*FILES, format="grid")),
    "no content type": ("POST", "/generate", {"content": b'{"seed": 7, "count": 1}'}),
    "chunks": ("POST", "/generate", {"content": iter([b'{"seed": 7, ', b'"count": 1}'])}),
    "no such field": ("POST", "/classify", {"json": {"images": PIXELS, "topk": 3}}),
    "no images": ("POST", "/classify", {"json": {"images": []}}),
    "no image": ("POST", "/classify", {"json": {"images": ["x"]}}),
    "another model": ("POST", "/classify", {"json": {"images": PIXELS, "model": "nope"}}),
    "too many": ("POST", "/generate", {"json": {"count": 257}}),
    "no JSON": ("POST", "/score", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    "an empty body": ("POST", "/score", {}),
    "another media type": ("POST", "/score", {"content": b"x", "headers": {"Content-Type": "text/csv"}}),
    "a broken form": (
        "POST",
        "/classify",
        {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    ),
    "too large": ("POST", "/classify", {"content": b" " * (2**24 + 1)}),
    "a wrong timeout": ("POST", "/generate", {"json": {"seed": 7}, "headers": {"X-Request-Timeout-Ms": "0"}}),
    "a late answer": ("POST", "/generate", {"json": {"seed": 7}, "headers": {"X-Request-Timeout-Ms": "0.0001"}}),
    "pickle": ("POST", "/classify", PICKLE),
    "v2": ("POST", CNN, v2(id="7")),
    "v2 binary": ("POST", CNN, v2_binary()),
    "v2 classification": ("POST", CNN, v2(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}])),
    "v2 packed": ("POST", SCORER, v2(outputs=[{"name": "residual"}]) | {"headers": {"Accept-Encoding": "gzip"}}),
    "v2 generation": ("POST", VAE, {"json": {"parameters": {"seed": 7, "count": 2}}}),
    "v2 no such output": ("POST", CNN, v2(outputs=[{"name": "nope"}])),
    "v2 no such model": ("POST", "/v2/models/nope/infer", v2()),
    "v2 no JSON": ("POST", CNN, {"content": b"{"}),
    "v2 late": ("POST", CNN, v2() | {"headers": {"X-Request-Timeout-Ms": "0.0001"}}),
    "v2 pickle": ("POST", CNN, PICKLE),
    "v2 metadata": ("GET", "/v2", {}),
    "v2 model": ("GET", "/v2/models/digits-cnn", {}),
    "v2 index": ("POST", "/v2/repository/index", {}),
    "v2 ready": ("GET", "/v2/health/ready", {}),
    "ready": ("GET", "/readyz", {}),
    "alive": ("GET", "/livez", {}),
    "started": ("GET", "/startupz", {}),
    "the page": ("GET", "/", {}),
    "the schema": ("GET", "/docs.json", {}),
    "no such route": ("POST", "/nope", {"json": {}}),
    "a route and a slash": ("POST", "/classify/", {"json": {}}),
}  # fmt: skip
for path in ("/classify", "/v2", CNN, "/livez", "/readyz", "/", "/nope", "/v2/nope"):
    for method in ("HEAD", "OPTIONS", "DELETE"):
        REQUESTS[f"{method} {path}"] = (method, path, {})
REQUESTS |= {f"GET {path}": ("GET", path, {}) for path in ("/generate", CNN, "/nope")}


@dataclass
class Pair:
    fast: httpx.Client
    plain: httpx.Client
    layers: bool  # whether `plain` asks through BentoML's layers


@pytest.fixture(scope="module", params=["DUET_DIRECT", "DUET_FAST_LANE"])
def pair(allinone_url: str, serve: Any, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with (
        serve("allinone", **{request.param: "false"}) as server,
        httpx.Client(base_url=allinone_url, timeout=30) as fast,
        httpx.Client(base_url=server.url, timeout=30) as plain,
    ):
        yield Pair(fast, plain, layers=request.param == "DUET_FAST_LANE")


def answer(client: httpx.Client, method: str, path: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a caller gets, without what is never twice the same."""
    options = dict(options)
    content = options.pop("content", None)
    if not isinstance(content, bytes | None):
        content = iter([b'{"seed": 7, ', b'"count": 1}'])  # an iterator serves one request
    headers = {"Cache-Control": "no-store", "X-Request-Id": "mine"} | options.pop("headers", {})
    found = client.request(method, path, headers=headers, content=content, **options)
    assert found.headers["x-request-id"] == "mine"
    kept = {name: value for name, value in found.headers.items() if name not in OWN}
    stages = re.findall(r"(\w+);dur=", found.headers.get("server-timing", ""))
    if found.status_code == 504:  # in which stage time ran out is chance
        return {"status": 504, "type": found.json()["type"]}
    body, measured = re.subn(rb'"item_seconds":[^,]+', b'"item_seconds":"measured"', found.content)
    if measured:  # by each process for itself, so its digits differ and with them the length
        del kept["content-length"]
    return {"status": found.status_code, "headers": kept, "stages": stages, "body": body}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_is_the_same_whichever_way_it_comes(pair: Pair, name: str) -> None:
    fast, plain = answer(pair.fast, *REQUESTS[name]), answer(pair.plain, *REQUESTS[name])
    assert fast == plain
    if name.startswith("HEAD"):
        assert fast["body"] == b""


def test_only_with_the_lane_an_answer_stays_outside_of_bentomls_layers(pair: Pair) -> None:
    body = {"count": 1, "seed": 7}
    assert "server" not in pair.fast.post("/generate", json=body).headers
    assert pair.plain.post("/generate", json=body).headers.get("server", "").startswith("BentoML") == pair.layers


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("classify pixels", 200),
        ("generate a grid", 200),
        ("v2 binary", 200),
        ("v2 packed", 200),
        ("chunks", 200),
        ("no content type", 200),
        ("HEAD /livez", 200),
        ("HEAD /v2", 200),
        ("the page", 200),
        ("no JSON", 400),
        ("v2 no JSON", 400),
        ("no such route", 404),
        ("v2 no such model", 404),
        ("another model", 404),
        ("HEAD /nope", 404),
        ("GET /generate", 405),
        ("HEAD /classify", 405),
        (f"GET {CNN}", 405),
        ("too large", 413),
        ("too many", 413),
        ("pickle", 415),
        ("v2 pickle", 415),
        ("another media type", 415),
        ("no such field", 422),
        ("v2 no such output", 422),
        ("a late answer", 504),
        ("v2 late", 504),
    ],
)
def test_the_compared_answers_are_those_that_are_meant(pair: Pair, name: str, status: int) -> None:
    assert answer(pair.fast, *REQUESTS[name])["status"] == status
