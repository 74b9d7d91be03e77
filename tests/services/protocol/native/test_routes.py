"""The native protocol's parsing and answering, with handlers of the test's own behind it."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message

from services.call import Call
from services.dataplane import DataPlane
from services.errors import QueueFull
from services.protocol import problems
from services.protocol.body import Bodies, Body
from services.protocol.exchange import complete
from services.protocol.headers import call_from_headers, headers_to_dict
from services.protocol.native.requests import ClassifyRequest, GenerateRequest, InterpolateRequest, ScoreRequest
from services.protocol.native.routes import Route
from services.protocol.raw_response import RawResponse


class Seen(BaseModel):
    """What a handler got."""

    fields: dict[str, Any]


async def classify(plane: DataPlane, request: ClassifyRequest, call: Call) -> Seen:
    return seen(request)


async def generate(plane: DataPlane, request: GenerateRequest, call: Call) -> Seen:
    return seen(request)


async def interpolate(plane: DataPlane, request: InterpolateRequest, call: Call) -> Seen:
    return seen(request)


async def score(plane: DataPlane, request: ScoreRequest, call: Call) -> Seen:
    return seen(request)


def seen(request: BaseModel) -> Seen:
    given = request.model_dump(exclude_unset=True)
    return Seen(fields=json.loads(json.dumps(given, default=lambda raw: f"{len(raw)} bytes")))


ROUTES: dict[str, Route[Any]] = {}


@pytest.fixture(autouse=True)
def routes(empty_store: Path) -> None:
    for handler in (classify, generate, interpolate, score):
        path = f"/{handler.__name__}"
        ROUTES[path] = Route(path, handler, Seen)


async def ask(path: str, body: bytes, headers: dict[str, str] | None = None, *, leaves: bool = False) -> Response:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": leaves}, {"type": "http.disconnect"}]
    incoming = iter(messages)

    async def receive() -> Message:
        return next(incoming)

    plane, named = DataPlane([]), headers_to_dict(raw)
    try:
        call = call_from_headers(named, plane.settings)
        answer = await ROUTES[path].respond(
            plane, named, Body(Bodies(plane.settings, plane.offload), receive, named), call
        )
        complete(answer, path, call)
    except Exception as error:
        answer = problems.problem(problems.refusal(error, path, "its-id"))
    return answer.response() if isinstance(answer, RawResponse) else answer


def body(response: Response) -> dict[str, Any]:
    return dict(json.loads(bytes(response.body)))


async def fields(path: str, **given: object) -> Any:
    response = await ask(path, json.dumps(given).encode())
    assert response.status_code == 200, response.body
    return body(response)["fields"]


async def refusal(path: str, **given: object) -> dict[str, Any]:
    response = await ask(path, json.dumps(given).encode())
    assert response.status_code == 422
    return body(response)


async def test_fields_come_in_by_their_names_and_types() -> None:
    given = {"count": 3, "class": "cat", "seed": 2**63 - 1, "truncation": 1, "format": "grid", "model": "m:1"}
    expected = {**given, "label": "cat"}
    del expected["class"]
    assert await fields("/generate", **given) == expected
    assert await fields("/generate") == {}
    assert await fields("/generate", seed=None, model=None, **{"class": None}) == {
        "seed": None,
        "model": None,
        "label": None,
    }
    assert await fields("/generate", **{"class": 7}) == {"label": 7}


@pytest.mark.parametrize(
    ("path", "given", "field", "detail"),
    [
        ("/generate", {"count": 0}, "count", "count: Input should be greater than or equal to 1; got 0"),
        ("/generate", {"count": "4"}, "count", 'count: Input should be a valid integer; got "4"'),
        ("/generate", {"count": True}, "count", "count: Input should be a valid integer; got true"),
        ("/generate", {"count": None}, "count", "count: Input should be a valid integer; got null"),
        ("/generate", {"count": [1]}, "count", "count: Input should be a valid integer; got a list"),
        ("/generate", {"count": {"a": 1}}, "count", "count: Input should be a valid integer; got an object"),
        ("/generate", {"class": [1]}, "class", "class: Input should be a valid string; got a list"),
        ("/generate", {"class": True}, "class", "class: Input should be a valid string; got true"),
        ("/generate", {"label": 1}, "label", "label: Extra inputs are not permitted; got 1"),
        ("/generate", {"nope": "x" * 999}, "nope", f'nope: Extra inputs are not permitted; got "{"x" * 56}...'),
        ("/generate", {"n" * 999: 1}, "n" * 60, f"{'n' * 60}: Extra inputs are not permitted; got 1"),
        (
            "/generate",
            {"truncation": 2.5},
            "truncation",
            "truncation: Input should be less than or equal to 2; got 2.5",
        ),
        ("/generate", {"format": "bmp"}, "format", "format: Input should be 'grid', 'png' or 'array'; got \"bmp\""),
        ("/classify", {}, "images", "images: Field required"),
        ("/classify", {"images": "a"}, "images", 'images: Input should be a valid list; got "a"'),
        ("/score", {"images": [0], "alpha": 1}, "alpha", "alpha: Input should be less than 1; got 1"),
        (
            "/interpolate",
            {"seeds": [1, -2]},
            "seeds[1]",
            "seeds[1]: Input should be greater than or equal to 0; got -2",
        ),
        ("/interpolate", {}, None, "send the two ends as exactly one of seeds, latents and images"),
    ],
)
async def test_a_schema_error_names_the_field_and_what_came(
    path: str, given: dict[str, object], field: str | None, detail: str
) -> None:
    problem = await refusal(path, **given)
    assert problem["detail"] == problem["error"] == detail
    assert problem.get("field") == field


def form(*parts: tuple[str, bytes]) -> bytes:
    return (
        b"".join(
            f"--cut\r\nContent-Disposition: form-data; {parameters}\r\n\r\n".encode() + content + b"\r\n"
            for parameters, content in parts
        )
        + b"--cut--\r\n"
    )


@pytest.mark.parametrize(
    ("path", "parts", "expected"),
    [
        pytest.param("/classify", [('name=images; filename="a"', b"png")], {"images": ["3 bytes"]}, id="one file"),
        pytest.param("/classify", [("name=images; filename=a", b"x")] * 2, {"images": ["1 bytes"] * 2}, id="two files"),
        pytest.param("/classify", [("name=images", b"[[1]]")], {"images": [[1]]}, id="a JSON list as text"),
        pytest.param("/classify", [("name=images", b"[1]"), ("name=images", b"b")], {"images": [[1], "b"]}, id="texts"),
        pytest.param("/interpolate", [("name=seeds", b"1"), ("name=seeds", b"2")], {"seeds": [1, 2]}, id="numbers"),
        pytest.param("/generate", [("name=class", b"cat")], {"label": "cat"}, id="text that is no JSON"),
        pytest.param("/generate", [("name=count", b"4"), ("name=count", b"5")], {"count": 5}, id="the last counts"),
        pytest.param("/generate", [("name=class", "ü".encode())], {"label": "ü"}, id="UTF-8"),
        pytest.param("/generate", [], {}, id="no part"),
    ],
)
async def test_a_form_means_the_same_as_json(path: str, parts: list[tuple[str, bytes]], expected: object) -> None:
    response = await ask(path, form(*parts), {"Content-Type": "multipart/form-data; boundary=cut"})
    assert body(response) == {"fields": expected}


async def test_a_file_in_place_of_a_number_is_named() -> None:
    raw = form(('name=count; filename="c"', b"4"))
    response = await ask("/generate", raw, {"Content-Type": "multipart/form-data; boundary=cut"})
    assert response.status_code == 422
    assert body(response)["detail"] == "count: Input should be a valid integer; got a file"


async def test_a_client_that_left_within_its_body_is_no_surprise() -> None:
    response = await ask("/generate", b'{"count"', leaves=True)
    assert response.status_code == 499
    assert "the client left" in body(response)["detail"]


Handler = Callable[[DataPlane, GenerateRequest, Call], Awaitable[Any]]


def handle(monkeypatch: pytest.MonkeyPatch, work: Callable[[Call], Any]) -> None:
    """Answer /generate with this."""

    async def handler(plane: DataPlane, request: GenerateRequest, call: Call) -> Seen:
        return work(call)

    monkeypatch.setitem(ROUTES, "/generate", Route("/generate", handler, Seen))


async def test_an_answer_says_what_the_cache_and_the_stages_did(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(call: Call) -> Seen:
        call.lookups, call.hits = 4, 1
        call.add("compute", 0.25)
        return Seen(fields={})

    handle(monkeypatch, work)
    headers = (await ask("/generate", b"{}")).headers
    assert headers["x-cache"] == "partial; hits=1/4"
    assert "compute;dur=250.000" in headers["server-timing"]
    assert headers["server-timing"].startswith("parse;dur=")


async def test_a_handler_may_answer_with_anything_http(monkeypatch: pytest.MonkeyPatch) -> None:
    handle(monkeypatch, lambda call: RawResponse(201, [], b"drawn"))
    response = await ask("/generate", b"{}")
    assert (response.status_code, response.body) == (201, b"drawn")
    assert response.headers["x-cache"] == "bypass"


async def test_headers_reach_the_handler_as_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Call] = []
    handle(monkeypatch, lambda call: calls.append(call) or Seen(fields={}))
    await ask("/generate", b"{}", {"Cache-Control": "no-store", "X-Request-Timeout-Ms": "900"})
    (call,) = calls
    assert not call.read_cache
    remaining = call.remaining()
    assert remaining is not None
    assert remaining <= 0.9


async def test_an_error_of_the_catalogue_becomes_its_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(call: Call) -> Seen:
        raise QueueFull("no room", retry_after=2)

    handle(monkeypatch, full)
    response = await ask("/generate", b"{}")
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")


async def test_a_bug_in_a_handler_tells_the_log_everything_and_the_caller_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: Call) -> Seen:
        raise KeyError("secret")

    handle(monkeypatch, broken)
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)  # a server's set-up switches it off
    response = await ask("/generate", b"{}")
    assert response.status_code == 500
    assert body(response)["detail"] == "an unexpected error occurred; see the server's log"
    assert "KeyError: 'secret'" in caplog.text


async def test_the_log_of_a_bug_names_the_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work(call: Call) -> Seen:
        raise ZeroDivisionError

    handle(monkeypatch, work)
    assert (await ask("/generate", b"{}")).status_code == 500
    assert "/generate failed (request its-id)" in caplog.text
    assert "ZeroDivisionError" in caplog.text
