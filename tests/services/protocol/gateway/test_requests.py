"""Requests pass the guard untouched, named, bounded and without pickle, or not at all."""

from __future__ import annotations

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from services.dataplane import DataPlane
from services.protocol.exchange import REQUEST_ID
from services.protocol.gateway import Gateway
from services.settings import Settings
from tests.services.protocol.gateway.asgi import LIMIT, Client, never


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
    answer = await Client(plane, never).ask(path, headers={"Content-Type": media_type}, chunks=(b"\x80\x04.",))
    assert answer.status == 415
    assert answer.problem["field"] == "Content-Type"


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
    monkeypatch.setenv("DUET_FAST_LANE", "true")
    plane.settings = Settings()
    client = Client(plane, never)
    answer = await client.ask(chunks=(b"a", b"b"), headers={"X-Request-Id": "mine"})
    assert (answer.status, answer.body, answer.headers["x-request-id"]) == (200, b"ab", "mine")
    assert (await client.ask(chunks=(bytes(LIMIT), b"x"))).status == 413
    assert (await client.ask(method="GET")).status == 405


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
    await Gateway(app, plane, {}, "tested")(scope, receive, send)
    assert seen == [(scope, receive, send)]
    assert seen[0][0] is scope
