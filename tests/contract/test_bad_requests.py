"""Bad requests against a real server: each is refused as documented, says why, and harms nobody after it."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.settings import Settings
from training.data.digits import load_digits

pytestmark = pytest.mark.server

LIMITS = Settings.model_fields
BODY_BYTES = int(LIMITS["body_bytes"].default)
ITEMS = int(LIMITS["request_items"].default)
ROUTES = ("/classify", "/generate", "/interpolate", "/reconstruct", "/score")

DIGITS = load_digits().test
IMAGE, LABEL = DIGITS.images[0, 0].tolist(), DIGITS.labels[0]
GOOD: dict[str, dict[str, Any]] = {
    "/classify": {"images": [IMAGE]},
    "/generate": {"count": 2, "seed": 7},
    "/interpolate": {"images": [IMAGE, IMAGE], "steps": 3},
    "/reconstruct": {"images": [IMAGE]},
    "/score": {"images": [IMAGE]},
}

# Traces, Python's names of types and values, addresses and paths.
PYTHON = re.compile(
    r"Traceback|\.py\b|<class|<_io| at 0x|\w+Error\b|\w+Exception\b|\w+Warning\b"
    r"|\b(None|True|False|NoneType|dict|bool|int|str|float|tuple|ndarray|numpy|pydantic|site-packages)\b"
)


def png(width: int = 28, height: int = 28) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(width * height, dtype=np.uint8).reshape(height, width)).save(out, "PNG")
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def with_pixel(pixel: object) -> list[list[object]]:
    return [[pixel, *IMAGE[0][1:]], *IMAGE[1:]]


def deep(levels: int) -> str:
    return "[" * levels + "0" + "]" * levels


def multipart(*parts: tuple[str, bytes], boundary: str = "cut", end: bool = True) -> bytes:
    """A multipart body of (Content-Disposition's parameters, content) parts."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data{parameters}\r\n\r\n".encode() + content + b"\r\n"
        for parameters, content in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


@dataclass(frozen=True)
class Case:
    """One bad request and the answer it must get."""

    name: str
    status: int
    field: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    method: str = "POST"
    path: str | None = None
    chunked: bool = False
    allow: str | None = None

    def content(self) -> bytes | Iterator[bytes] | None:
        if self.body is None or not self.chunked:
            return self.body
        return (self.body[start : start + 2**20] for start in range(0, len(self.body), 2**20))


def raw(name: str, status: int, field: str | None, body: bytes | str, **more: Any) -> Case:
    return Case(name, status, field, body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"), **more)


def form(name: str, status: int, field: str | None, *parts: tuple[str, bytes], end: bool = True) -> Case:
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    return Case(name, status, field, multipart(*parts, end=end), headers)


def everywhere(route: str) -> Iterator[Case]:
    """What every route refuses, whatever it does."""
    good = GOOD[route]
    files = [('; name=images; filename="a.png"', png())] * len(good.get("images", ()))

    def fields(name: str, status: int, field: str | None, **changes: Any) -> Case:
        return raw(name, status, field, json.dumps(good | changes))

    def headers(name: str, status: int, field: str | None, **given: str) -> Case:
        named = {key.replace("_", "-"): value for key, value in given.items()}
        return raw(name, status, field, json.dumps(good), headers={"Content-Type": "application/json"} | named)

    def typed(name: str, status: int, media_type: str, body: bytes = b"--cut--\r\n") -> Case:
        return raw(
            name, status, "Content-Type" if status == 415 else "body", body, headers={"Content-Type": media_type}
        )

    yield raw("empty body", 400, "body", b"")
    yield raw("not JSON", 400, "body", b"images=1")
    yield raw("JSON cut short", 400, "body", json.dumps(good)[:-1])
    yield raw("JSON twice", 400, "body", 2 * json.dumps(good))
    yield raw("JSON list", 400, "body", b"[]")
    yield raw("JSON text", 400, "body", b'"images"')
    yield raw("JSON number", 400, "body", b"1")
    yield raw("JSON null", 400, "body", b"null")
    yield raw("single quotes", 400, "body", b"{'images': 1}")
    yield raw("UTF-16", 400, "body", json.dumps(good).encode("utf-16"))
    yield raw("byte order mark", 400, "body", b"\xef\xbb\xbf" + json.dumps(good).encode())
    yield raw("bytes that are no UTF-8", 400, "body", b'{"model": "\xff\xfe"}')
    yield raw("NUL bytes", 400, "body", bytes(100))
    yield raw("lone surrogate", 400, "body", rb'{"model": "\ud800"}')
    yield raw("lone surrogate unescaped", 400, "body", '{"model": "\ud800"}')
    yield raw("half an escape", 400, "body", rb'{"model": "\u00')
    yield raw("100,000 levels deep", 400, "body", '{"images": [' + deep(100_000) + "]}")
    yield raw("100,000 objects deep", 400, "body", '{"a":' * 100_000)
    yield raw("a number of 5,000 digits", 400, "body", '{"seed": ' + "9" * 5000 + "}")
    yield raw("huge JSON", 413, "body", b" " * (BODY_BYTES + 1))
    yield raw("huge JSON in chunks", 413, "body", b" " * (BODY_BYTES + 1), chunked=True)
    yield raw("gzip", 400, "body", zlib.compress(json.dumps(good).encode(), wbits=31))
    yield typed("wrong media type", 415, "text/plain")
    yield typed("a form that is no multipart", 415, "application/x-www-form-urlencoded", b"count=1")
    yield typed("BentoML's pickle", 415, "application/vnd.bentoml+pickle", b"\x80\x04N.")
    yield typed("pickle in capitals", 415, "Application/VND.BentoML+Pickle; a=b", b"\x80\x04N.")
    yield typed("media type of another world", 415, "image/" + "x" * 4000)
    yield typed("media type empty", 415, "")
    yield typed("missing boundary", 400, "multipart/form-data")
    yield typed("empty boundary", 400, "multipart/form-data; boundary=")
    yield typed("another boundary", 400, "multipart/form-data; boundary=other")
    yield typed(
        "charset of no text", 400, "multipart/form-data; boundary=cut; charset=undefined", multipart(("; name=x", b"1"))
    )
    yield form("part without a name", 400, "body", ("", b"1"))
    yield form("unknown part", 422, "colour", *files, ("; name=colour", b"1"))
    yield form("model as a file", 422, "model", *files, ('; name=model; filename="m"', b"digits-vae"))
    yield fields("unknown field", 422, "nope", nope=1)
    yield fields("unknown field without a name", 422, "", **{"": 1})
    yield fields("unknown field of 10,000 letters", 422, "x" * 60, **{"x" * 10_000: 1})
    yield fields("unknown field with a NUL", 422, "\0", **{"\0": 1})
    yield fields("unknown model", 404, "model", model="nobody")
    yield fields("unknown version", 404, "model", model="digits-vae:0")
    yield fields("model with a NUL", 404, "model", model="\0")
    yield fields("model with a path", 404, "model", model="../../etc/passwd")
    yield fields("model as a number", 422, "model", model=1)
    yield fields("model as a list", 422, "model", model=[])
    for wish in ("0", "-1", "nan", "soon", "", "1s", "9" * 400 + "x"):
        yield headers(f"timeout {wish[:5]!r}", 422, "X-Request-Timeout-Ms", X_Request_Timeout_Ms=wish)
    yield headers("no time at all", 504, "X-Request-Timeout-Ms", X_Request_Timeout_Ms="1e-9", Cache_Control="no-store")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield Case(f"method {method}", 405, None, method=method, allow="POST")
    yield Case("trailing slash", 404, None, b"{}", path=f"{route}/")
    yield Case("double slash", 404, None, b"{}", path=f"/{route}")
    yield Case("in capitals", 404, None, b"{}", path=route.upper())
    yield Case("below the route", 404, None, b"{}", path=f"{route}/x")
    yield Case("percent-encoded slash", 404, None, b"{}", path=f"{route}%2F")
    yield Case("NUL in the path", 404, None, b"{}", path=f"{route}%00")
    yield Case("bytes that are no UTF-8 in the path", 404, None, b"{}", path=f"{route}%FF%FE")


BAD_IMAGES: tuple[tuple[str, int, object], ...] = (
    ("text", 422, "a digit"),
    ("empty text", 422, ""),
    ("text with a NUL", 422, "\0"),
    ("no image", 422, text(b"hello, world")),
    ("gif", 422, text(b"GIF89a" + bytes(50))),
    ("base64 with newlines", 422, text(png())[:40] + "\n" + text(png())[40:]),
    ("truncated PNG", 422, text(png()[:-40])),
    ("PNG signature alone", 422, text(png()[:8])),
    ("decompression bomb", 413, text(bomb(50_000))),
    ("bomb in a data URL", 413, "data:image/png;base64," + text(bomb(5_000))),
    ("PNG without its pixels", 422, text(bomb(100))),
    ("null", 422, None),
    ("number", 422, 7),
    ("boolean", 422, True),
    ("object", 422, {"b64": text(png())}),
    ("empty list", 422, []),
    ("empty rows", 422, [[]] * 28),
    ("wrong shape", 422, [[0] * 27] * 28),
    ("one row", 422, IMAGE[0]),
    ("a batch", 422, [[IMAGE]]),
    ("colour", 422, [[[0, 0, 0]] * 28] * 28),
    ("ragged", 422, [*IMAGE[:-1], IMAGE[-1][:-1]]),
    ("ragged in depth", 422, [*IMAGE[:-1], 0]),
    ("texts", 422, [["0"] * 28] * 28),
    ("booleans", 422, [[True] * 28] * 28),
    ("nulls", 422, [[None] * 28] * 28),
    ("one text", 422, with_pixel("0")),
    ("one boolean", 422, with_pixel(True)),
    ("one null", 422, with_pixel(None)),
    ("one object", 422, with_pixel({})),
    ("NaN", 422, with_pixel(float("nan"))),
    ("Infinity", 422, with_pixel(float("inf"))),
    ("-Infinity", 422, with_pixel(float("-inf"))),
    ("below 0", 422, with_pixel(-1)),
    ("above 255", 422, with_pixel(256)),
    ("fraction", 422, with_pixel(0.5)),
    ("10^19", 422, with_pixel(10**19)),
    ("10^400", 422, with_pixel(10**400)),
    ("-10^400", 422, with_pixel(-(10**400))),
    ("60 levels deep", 422, json.loads(deep(60))),
    ("100 levels deep", 422, json.loads(deep(100))),
)


def with_images(route: str) -> Iterator[Case]:
    """What every route that takes images refuses in their place."""
    pair = route == "/interpolate"  # takes exactly two: the bad one comes second
    before = [IMAGE] if pair else []
    at = f"images[{len(before)}]"

    def given(name: str, status: int, field: str, images: object, **more: object) -> Case:
        return raw(name, status, field, json.dumps({"images": images} | more))

    def file(content: bytes) -> tuple[str, bytes]:
        return ('; name=images; filename="a.png"', content)

    for name, status, image in BAD_IMAGES:
        yield given(f"image: {name}", status, at, [*before, image])
    yield raw("image: 1e999", 422, at, json.dumps({"images": [*before, with_pixel(-77)]}).replace("-77", "1e999"))
    yield given("images: empty", 422, "images", [])
    yield given("images: text", 422, "images", text(png()))
    yield given("images: number", 422, "images", 1)
    yield given("images: object", 422, "images", {"0": IMAGE})
    yield given("images: too many", 422 if pair else 413, "images", [text(png())] * (ITEMS + 1))
    yield given("a number nobody asked for", 422, "count", [IMAGE, IMAGE], count=1)
    good = [file(png())] * len(before)
    yield form("file: no image", 422, at, *good, file(b"hello, world"))
    yield form("file: empty", 422, at, *good, file(b""))
    yield form("file: truncated", 422, at, *good, file(png()[:-40]))
    yield form("file: bomb", 413, at, *good, file(bomb(50_000)))
    yield form("file: never ends", 422, None if pair else "images", file(png()), end=False)
    yield form("file: under another name", 422, "image", *good, file(png()), ("; name=image; filename=a", png()))
    yield form("file: too many", 413, "images", *([file(png())] * (ITEMS + 2)))
    yield form(
        "file: the model twice, neither known",
        404,
        "model",
        file(png()),
        file(png()),
        ("; name=model", b"a"),
        ("; name=model", b"b"),
    )
    if not pair:
        yield raw("no images", 422, "images", b"{}")
        yield given("images: null", 422, "images", None)


def classify_cases() -> Iterator[Case]:
    for name, value in (("0", 0), ("-1", -1), ("text", "3"), ("fraction", 1.5), ("null", None), ("boolean", True)):
        yield raw(f"top_k {name}", 422, "top_k", json.dumps(GOOD["/classify"] | {"top_k": value}))
    yield raw("a generator's model", 404, "model", json.dumps(GOOD["/classify"] | {"model": "digits-vae"}))


def generate_cases() -> Iterator[Case]:
    def given(name: str, status: int, field: str, **fields: object) -> Case:
        return raw(f"{field} {name}", status, field, json.dumps({"model": "digits-vae"} | fields))

    for name, status, count in (
        ("negative", 422, -1),
        ("0", 422, 0),
        ("as text", 422, "4"),
        ("as words", 422, "four"),
        ("fraction", 422, 1.5),
        ("boolean", 422, True),
        ("null", 422, None),
        ("list", 422, [4]),
        ("one too many", 413, ITEMS + 1),
        ("10^9", 413, 10**9),
        ("10^400", 413, 10**400),
    ):
        yield given(name, status, "count", count=count)
    yield raw("count NaN", 422, "count", b'{"count": NaN}')
    yield raw("count 1e999", 422, "count", b'{"count": 1e999}')
    for name, seed in (("negative", -1), ("2^63", 2**63), ("10^400", 10**400), ("text", "1"), ("fraction", 0.5)):
        yield given(name, 422, "seed", seed=seed)
    for name, truncation in (
        ("0", 0),
        ("negative", -1),
        ("3", 3),
        ("NaN", float("nan")),
        ("10^400", 10**400),
        ("text", "1"),
    ):
        yield given(name, 422, "truncation", truncation=truncation)
    for name, label in (("of a model that has none", "3"), ("list", ["3"]), ("boolean", True), ("fraction", 1.5)):
        yield given(name, 422, "class", **{"class": label})
    for name, unknown in (
        ("unknown", "cat"),
        ("out of range", 10),
        ("negative", -1),
        ("10^400", 10**400),
        ("empty", ""),
    ):
        yield given(f"{name} of a model that has some", 422, "class", **{"class": unknown, "model": "digits-gan"})
    for name, wish in (("unknown", "jpeg"), ("in capitals", "PNG"), ("null", None), ("number", 1)):
        yield given(name, 422, "format", format=wish)
    yield given("of a classifier", 404, "model", model="digits-cnn")
    yield form("form: count as words", 422, "count", ("; name=count", b"four"))
    yield form("form: count as a file", 422, "count", ('; name=count; filename="c"', b"4"))
    yield form("form: count twice, the last is wrong", 422, "count", ("; name=count", b"4"), ("; name=count", b"-4"))


def interpolate_cases() -> Iterator[Case]:
    def given(name: str, status: int, field: str | None, **fields: object) -> Case:
        return raw(name, status, field, json.dumps(fields))

    yield given("neither seeds nor images", 422, None, steps=3)
    yield given("both seeds and images", 422, None, seeds=[1, 2], images=[IMAGE, IMAGE])
    yield given("one image", 422, "images", images=[IMAGE])
    yield given("three images", 422, "images", images=[IMAGE] * 3)
    for name, seeds in (("one", [1]), ("three", [1, 2, 3]), ("none", []), ("a number", 1), ("text", "12")):
        yield given(f"seeds: {name}", 422, "seeds", seeds=seeds)
    for name, seed in (("negative", -1), ("2^63", 2**63), ("text", "2"), ("fraction", 1.5), ("null", None)):
        yield given(f"second seed {name}", 422, "seeds[1]", seeds=[1, seed])
    for name, status, steps in (("1", 422, 1), ("text", 422, "8"), ("too many", 413, ITEMS + 1), ("10^9", 413, 10**9)):
        yield given(f"steps {name}", status, "steps", seeds=[1, 2], steps=steps)
    yield given("path unknown", 422, "path", seeds=[1, 2], path="scenic")
    yield given("class of a model that has none", 422, "class", seeds=[1, 2], model="digits-vae", **{"class": 1})
    yield given("images for a model without encoder", 404, "model", images=[IMAGE, IMAGE], model="digits-gan")


def reconstruct_cases() -> Iterator[Case]:
    yield raw("format unknown", 422, "format", json.dumps(GOOD["/reconstruct"] | {"format": "bmp"}))
    yield raw("a model without encoder", 404, "model", json.dumps(GOOD["/reconstruct"] | {"model": "digits-gan"}))


def score_cases() -> Iterator[Case]:
    for name, alpha in (
        ("0", 0),
        ("1", 1),
        ("negative", -0.1),
        ("NaN", float("nan")),
        ("text", "0.05"),
        ("null", None),
    ):
        yield raw(f"alpha {name}", 422, "alpha", json.dumps(GOOD["/score"] | {"alpha": alpha}))
    for name, wish in (("text", "yes"), ("number", 1), ("null", None)):
        yield raw(f"heatmap {name}", 422, "heatmap", json.dumps(GOOD["/score"] | {"heatmap": wish}))
    yield raw("a classifier's model", 404, "model", json.dumps(GOOD["/score"] | {"model": "digits-cnn"}))


OWN: dict[str, Callable[[], Iterator[Case]]] = {
    "/classify": classify_cases,
    "/generate": generate_cases,
    "/interpolate": interpolate_cases,
    "/reconstruct": reconstruct_cases,
    "/score": score_cases,
}


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
