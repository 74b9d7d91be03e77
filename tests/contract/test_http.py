"""HTTP itself: what RFC 9110 and 9112 want of requests that are right, odd, wrong or never end. Raw sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import PATIENCE, Serve
from tests.contract.messages import CASES, GET, HOST, connect, head, post, rest, statuses

pytestmark = pytest.mark.server

HEAD_SECONDS = 2.0


@pytest.fixture(scope="module")
def port(serve: Serve) -> Iterator[int]:
    settings = {"DUET_HEAD_SECONDS": str(HEAD_SECONDS), "DUET_KEEP_ALIVE_SECONDS": "0.3", "DUET_PEER_CONNECTIONS": "40"}
    with serve("classification", **settings) as server:
        yield int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("name", CASES)
def test_a_request_gets_the_answer_that_the_standard_wants(port: int, name: str) -> None:
    sent, expected = CASES[name]
    with connect(port) as connection:
        connection.sendall(sent)
        came = rest(connection)
    assert statuses(came) == expected, came[-400:]
    if expected[-1] >= 400:
        body = came.rpartition(b"\r\n\r\n")[2]
        assert json.loads(body)["status"] == expected[-1]
        assert httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200


def test_a_request_in_pieces_and_a_half_closed_client_are_answered(port: int) -> None:
    with connect(port) as connection:
        for start in range(0, len(sent := post()), 7):
            connection.sendall(sent[start : start + 7])
        connection.shutdown(socket.SHUT_WR)
        assert statuses(rest(connection)) == [200]


SLOW = {"silent": b"", "half a head": GET, "half a line": b"GE", "a head after a request": GET + b"\r\n" + b"POST /cl"}


@pytest.mark.parametrize("kind", SLOW)
def test_a_head_has_its_time(port: int, kind: str) -> None:
    with connect(port) as connection:
        begin = time.monotonic()
        connection.sendall(SLOW[kind])
        came = rest(connection)
        took = time.monotonic() - begin
    assert HEAD_SECONDS / 2 < took < PATIENCE / 2
    expected = {"silent": [], "a head after a request": [200, 408]}
    assert statuses(came) == expected.get(kind, [408])


def test_a_client_that_goes_on_sending_after_its_answer_is_disconnected(port: int) -> None:
    end = time.monotonic() + PATIENCE
    with connect(port) as connection:
        connection.sendall(head(HOST, b"Content-Length: 999999999", method=b"POST /classify HTTP/1.1"))
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(bytes(1000))
                time.sleep(0.01)
    assert time.monotonic() < end


def test_one_client_may_have_so_many_connections(port: int) -> None:
    held = [connect(port) for _ in range(40)]
    with connect(port) as connection:
        came = rest(connection)
    assert statuses(came) == [503]
    assert b"retry-after: 1\r\n" in came
    for connection in held:
        connection.close()


@pytest.mark.parametrize("more", [b"", GET + b"\r\n", GET], ids=["nothing", "a request", "half a head"])
def test_a_client_that_does_not_read_its_answer_is_disconnected(serve: Serve, more: bytes) -> None:
    body = json.dumps({"count": 256, "seed": 1, "format": "array", "model": "digits-vae"}).encode()
    request = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with serve("generation", DUET_REQUEST_TIMEOUT_MS="5000") as server:

        def in_flight() -> bool:
            return 'duet_requests_in_flight{route="/generate"} 1.0' in httpx.get(f"{server.url}/metrics").text

        with connect(int(server.url.rpartition(":")[2])) as connection:
            connection.sendall((request % len(body) + body) * 40)  # more than the system buffers
            end, since = time.monotonic() + PATIENCE, time.monotonic()
            while time.monotonic() < since + 0.5:  # so long one is in flight: it waits for the client to read
                assert time.monotonic() < end
                if not in_flight():
                    since = time.monotonic()
                time.sleep(0.02)
            connection.sendall(more)
            while in_flight():
                assert time.monotonic() < end
                time.sleep(0.2)
            with contextlib.suppress(ConnectionError):
                assert rest(connection).count(b"HTTP/1.1 200 ") < 40
