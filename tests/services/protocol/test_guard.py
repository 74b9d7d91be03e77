"""The guard, around a small ASGI app that takes BentoML's place, with the native routes left to it (no fast lane)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.dataplane import DataPlane
from services.errors import QueueFull
from services.protocol.guard import PAGES, PROBES, REQUEST_ID, Guard
from services.protocol.native import RESPONDERS
from services.settings import Settings

LIMIT = 1000


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> DataPlane:
    """One that serves nothing, and is ready."""
    monkeypatch.setenv("DUET_BODY_BYTES", str(LIMIT))
    monkeypatch.setenv("DUET_FAST_LANE", "false")
    plane = DataPlane([])
    plane.problems = []
    assert plane.settings == Settings()
    return plane


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        return dict(json.loads(self.body))


@dataclass
class Client:
    """Speaks ASGI with a guard, message by message."""

    plane: DataPlane
    app: ASGIApp
    sent: list[Message] = field(default_factory=list)

    async def ask(
        self,
        path: str = "/echo",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        chunks: tuple[bytes, ...] = (b"",),
        leaves: bool = False,
    ) -> Answer:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
        messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": leaves or i < len(chunks) - 1}
            for i, chunk in enumerate(chunks)
        ]
        incoming = iter([*messages, {"type": "http.disconnect"}])
        self.sent = []

        async def receive() -> Message:
            return next(incoming)

        async def send(message: Message) -> None:
            self.sent.append(message)

        await Guard(self.app, self.plane, {"/echo", "/other"}, "tested")(scope, receive, send)
        start, *rest = self.sent
        assert start["type"] == "http.response.start"
        assert all(message["type"] == "http.response.body" for message in rest)
        named = {name.decode(): value.decode() for name, value in start["headers"]}
        assert len(named) == len(start["headers"]), "a header twice"
        return Answer(start["status"], named, b"".join(message["body"] for message in rest))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


@pytest.fixture
def client(plane: DataPlane) -> Client:
    return Client(plane, echo)


def samples(name: str) -> Iterator[tuple[dict[str, str], float]]:
    for metric in REGISTRY.collect():
        yield from ((sample.labels, sample.value) for sample in metric.samples if sample.name == name)


def total(name: str, **labels: str) -> float:
    return sum(value for given, value in samples(name) if labels.items() <= given.items())


async def test_a_request_goes_through_untouched_and_is_named(client: Client) -> None:
    answer = await client.ask(chunks=(b"ab", b"", b"c"))
    assert (answer.status, answer.body) == (200, b"abc")
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"].encode())


async def test_two_requests_have_two_names(client: Client) -> None:
    assert (await client.ask()).headers["x-request-id"] != (await client.ask()).headers["x-request-id"]


async def test_a_callers_request_id_comes_back(client: Client) -> None:
    assert (await client.ask(headers={"X-Request-Id": "A-b_c.9"})).headers["x-request-id"] == "A-b_c.9"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ä", "a\r\nSet-Cookie: b", "<script>", "a\n"])
async def test_a_request_id_that_is_no_name_is_replaced(client: Client, given: str) -> None:
    name = (await client.ask(headers={"X-Request-Id": given})).headers["x-request-id"]
    assert name != given
    assert REQUEST_ID.fullmatch(name.encode())


async def test_refusals_are_named_too(client: Client) -> None:
    answer = await client.ask("/nowhere", headers={"X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"


async def test_a_body_as_large_as_allowed_is_taken(client: Client) -> None:
    answer = await client.ask(headers={"Content-Length": str(LIMIT)}, chunks=(bytes(LIMIT // 2), bytes(LIMIT // 2)))
    assert len(answer.body) == LIMIT


@pytest.mark.parametrize("declared", [None, "10", "0", "-5", "ten", "\xb2", "", str(LIMIT)])
async def test_a_larger_body_is_refused_whatever_content_length_says(client: Client, declared: str | None) -> None:
    headers = {} if declared is None else {"Content-Length": declared}
    answer = await client.ask(headers=headers, chunks=(bytes(LIMIT), b"x"))
    assert answer.status == 413
    assert answer.problem["field"] == "body"
    assert f"more than {LIMIT} bytes" in answer.problem["detail"]


async def test_a_body_that_is_declared_larger_is_refused_unread(plane: DataPlane) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was asked")

    answer = await Client(plane, never).ask(headers={"Content-Length": str(LIMIT + 1)})
    assert answer.status == 413
    assert answer.problem["detail"] == f"the body has {LIMIT + 1} bytes; at most {LIMIT} are allowed"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.bentoml+pickle",
        "Application/VND.BentoML+Pickle; charset=utf-8",
        " application/vnd.bentoml+pickle ;x",
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/", "/nowhere"])
async def test_pickle_never_reaches_the_app(plane: DataPlane, media_type: str, path: str) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was asked")

    answer = await Client(plane, never).ask(path, headers={"Content-Type": media_type}, chunks=(b"\x80\x04.",))
    assert answer.status == 415
    assert answer.problem["field"] == "Content-Type"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/echo/", "//echo", "/ECHO", "", "/echo\x00", "/../echo", "/livez/x", "/\ud800", "/" * 9999]
)
async def test_an_unknown_route_is_404_and_lists_the_known_ones(client: Client, path: str) -> None:
    answer = await client.ask(path)
    assert answer.status == 404
    assert "there is /echo, /healthz, /livez, /metrics, /other, /readyz and /v2" in answer.problem["detail"]
    assert len(answer.problem["detail"]) < 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "post", "BREW" * 99])
async def test_a_route_takes_post_only_and_says_so(client: Client, method: str) -> None:
    answer = await client.ask("/echo", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert len(answer.problem["detail"]) < 100


@pytest.mark.parametrize("path", [*sorted(PROBES | PAGES), "/static_content/x"])
async def test_pages_and_probes_take_get_and_head_only_and_say_so(client: Client, path: str) -> None:
    answer = await client.ask(path, "POST")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert (await client.ask(path, "GET")).status == (await client.ask(path, "HEAD")).status == 200


async def test_alive_even_when_not_ready(client: Client) -> None:
    client.plane.problems = ["no bundle"]
    assert (await client.ask("/livez", "GET")).status == (await client.ask("/healthz", "GET")).status == 200


async def test_not_ready_says_why_and_when_to_ask_again(client: Client) -> None:
    client.plane.problems = ["no bundle", "another"]
    answer = await client.ask("/readyz", "GET")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.problem["detail"] == "no bundle; another"


async def test_ready_lists_the_models(client: Client) -> None:
    assert json.loads((await client.ask("/readyz", "GET")).body) == {"ready": True, "models": []}


async def test_draining_is_not_ready_and_sends_the_next_request_of_a_client_elsewhere(client: Client) -> None:
    client.plane.draining = True
    probe, request = await client.ask("/readyz", "GET"), await client.ask(chunks=(b"late",))
    assert (probe.status, probe.headers["retry-after"]) == (503, "1")
    assert (request.status, request.body) == (200, b"late")
    assert probe.headers["connection"] == request.headers["connection"] == "close"


async def test_metrics_are_prometheus_text(client: Client) -> None:
    answer = await client.ask("/metrics", "GET")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"duet_requests_in_flight" in answer.body


async def test_metric_labels_do_not_grow_with_what_callers_send(client: Client) -> None:
    await client.ask("/nowhere")
    await client.ask("/static_content/a.js", "GET")
    before = len(list(samples("duet_request_duration_seconds_count")))
    unknown = total("duet_request_duration_seconds_count", route="unknown", status="404")
    for i in range(50):
        await client.ask(f"/nowhere/{i}", headers={"X-Request-Id": f"id-{i}", "User-Agent": f"agent {i}"})
        await client.ask(f"/static_content/{i}.js", "GET")
    assert len(list(samples("duet_request_duration_seconds_count"))) == before
    assert total("duet_request_duration_seconds_count", route="unknown", status="404") == unknown + 50


async def test_a_request_is_measured_once_by_route_and_status(client: Client) -> None:
    labels = {"route": "/echo", "status": "200"}
    before = total("duet_request_duration_seconds_count", **labels)
    await client.ask()
    assert total("duet_request_duration_seconds_count", **labels) == before + 1
    assert total("duet_requests_in_flight", route="/echo") == 0


async def test_a_refusal_counts_as_one_rejection(client: Client) -> None:
    before = total("duet_rejections_total", route="/echo", reason="too-large")
    await client.ask(headers={"Content-Length": "99999"})
    assert total("duet_rejections_total", route="/echo", reason="too-large") == before + 1


async def test_an_error_of_the_catalogue_from_inside_becomes_its_problem(plane: DataPlane) -> None:
    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        raise QueueFull("no room", retry_after=3)

    answer = await Client(plane, full).ask()
    assert (answer.status, answer.problem["detail"], answer.headers["retry-after"]) == (429, "no room", "3")


async def test_an_exception_inside_tells_the_log_everything_and_the_caller_nothing(
    plane: DataPlane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)  # a server's set-up switches it off

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret")

    before = total("duet_request_duration_seconds_count", route="/echo", status="500")
    with caplog.at_level(logging.ERROR, "duet.guard"):
        answer = await Client(plane, broken).ask(headers={"X-Request-Id": "mine"})
    assert answer.status == 500
    assert answer.headers["x-request-id"] == "mine"
    assert answer.problem["detail"] == "an unexpected error occurred; the server's log has it"
    assert b"secret" not in answer.body
    assert b"KeyError" not in answer.body
    assert "KeyError: 'secret'" in caplog.text
    assert total("duet_request_duration_seconds_count", route="/echo", status="500") == before + 1
    assert total("duet_requests_in_flight", route="/echo") == 0


@pytest.mark.parametrize("error", [KeyError("late"), QueueFull("late")])
async def test_an_answer_that_has_begun_is_not_begun_again(plane: DataPlane, error: Exception) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    client = Client(plane, late)
    with pytest.raises(type(error), match="late"):
        await client.ask()
    assert len(client.sent) == 1
    assert total("duet_requests_in_flight", route="/echo") == 0


async def test_the_app_sees_that_the_client_left(plane: DataPlane) -> None:
    seen = []

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            seen.append("left")
        await PlainTextResponse("nobody reads this")(scope, receive, send)

    await Client(plane, patient).ask(headers={"Content-Length": "900"}, chunks=(b"half",), leaves=True)
    assert seen == ["left"]


async def test_in_the_fast_lane_a_native_route_never_enters_bentoml(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was asked")

    async def respond(plane: DataPlane, request: Request, gone: Callable[[], bool] | None) -> Response:
        return PlainTextResponse(await request.body())

    monkeypatch.setitem(RESPONDERS, "/echo", respond)
    monkeypatch.setenv("DUET_FAST_LANE", "true")
    plane.settings = Settings()
    client = Client(plane, never)
    answer = await client.ask(chunks=(b"a", b"b"), headers={"X-Request-Id": "mine"})
    assert (answer.status, answer.body, answer.headers["x-request-id"]) == (200, b"ab", "mine")
    assert (await client.ask(chunks=(bytes(LIMIT), b"x"))).status == 413
    assert (await client.ask(method="GET")).status == 405


async def test_v2_is_answered_here_and_its_errors_are_problems_too(client: Client) -> None:
    answer = await client.ask("/v2/models/none/infer", chunks=(b"{}",))
    assert answer.status == 404
    assert answer.problem["detail"] == answer.problem["error"]
    assert (await client.ask("/v2/health/live", "GET")).status == 200


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_go_to_the_app_as_they_are(plane: DataPlane, kind: str) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": kind, "app": object()}
    await Guard(app, plane, {"/echo"}, "tested")(scope, receive, send)
    assert seen == [(scope, receive, send)]
    assert seen[0][0] is scope
