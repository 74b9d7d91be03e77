"""The guard knows its routes and probes, which methods they take, and what it answers itself."""

from __future__ import annotations

import json

import pytest

from services.protocol.gateway import PAGES, PROBES
from tests.services.protocol.gateway.asgi import Client


@pytest.mark.parametrize(
    "path", ["/nowhere", "/echo/", "//echo", "/ECHO", "", "/echo\x00", "/../echo", "/livez/x", "/\ud800", "/" * 9999]
)
async def test_an_unknown_route_is_404_and_lists_the_known_ones(client: Client, path: str) -> None:
    answer = await client.ask(path)
    assert answer.status == 404
    assert (
        "no such route; the routes are /echo, /healthz, /livez, /metrics, /other, /readyz, /startupz, /models and /v2"
        in answer.problem["detail"]
    )
    assert len(answer.problem["detail"]) < 250


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


async def test_v2_is_answered_here_and_its_errors_are_problems_too(client: Client) -> None:
    answer = await client.ask("/v2/models/none/infer", chunks=(b"{}",))
    assert answer.status == 404
    assert answer.problem["detail"] == answer.problem["error"]
    assert (await client.ask("/v2/health/live", "GET")).status == 200


async def test_alive_even_when_not_ready(client: Client) -> None:
    client.plane.problems = ["no bundle"]
    assert (await client.ask("/livez", "GET")).status == (await client.ask("/healthz", "GET")).status == 200


async def test_started_when_loading_has_ended_whatever_was_found(client: Client) -> None:
    client.plane.starting = True
    answer = await client.ask("/startupz", "GET")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.problem["detail"].startswith("starting")
    await client.plane.start()  # of a store that is empty
    client.plane.problems = ["no bundle"]
    client.plane.draining = True
    assert [(await client.ask(path, "GET")).status for path in ("/startupz", "/readyz")] == [200, 503]
    await client.plane.stop()
    assert (await client.ask("/startupz", "GET")).status == 200


async def test_started_when_loading_itself_fails(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.plane.starting = True
    monkeypatch.setattr("services.dataplane.Cache.from_settings", lambda _: 1 / 0)
    await client.plane.start()
    assert [(await client.ask(path, "GET")).status for path in ("/startupz", "/livez", "/readyz")] == [200, 200, 503]


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
