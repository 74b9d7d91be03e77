"""HTTP itself: what RFC 9110 and 9112 want of requests that are right, odd, wrong or never end. Raw sockets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from services.protocol.native.requests import FOUR
from tests.conftest import PATIENCE, Serve

pytestmark = pytest.mark.server

HEAD_SECONDS = 2.0
BODY = json.dumps({"images": [FOUR]}).encode()
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


def post(more: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = b"POST /classify HTTP/%b\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (version, len(BODY), more) + BODY


def chunked(*parts: bytes, size: bytes = b"%x", trailer: bytes = b"", end: bytes = b"\r\n") -> bytes:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    sizes = [size % len(part) if b"%" in size else size for part in parts]
    chunks = [number + end + part + b"\r\n" for number, part in zip(sizes, parts, strict=True)]
    return head + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def head(*lines: bytes, method: bytes = b"GET /livez HTTP/1.1") -> bytes:
    return b"\r\n".join([method, *lines, b"", b""])


HOST = b"Host: x"
CASES: dict[str, tuple[bytes, list[int]]] = {
    "a post": (post(CLOSE), [200]),
    "HTTP/1.0": (post(version=b"1.0"), [200]),
    "an offer of HTTP/2": (post(UPGRADE + CLOSE), [200]),
    "an offer of HTTP/2 without a body": (GET + UPGRADE + CLOSE + b"\r\n", [200]),
    "an offer of WebSocket": (post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), [200]),
    "an offer, then a request": (post(UPGRADE) + GET + CLOSE + b"\r\n", [200, 200]),
    "HEAD": (head(HOST, b"Connection: close", method=b"HEAD /livez HTTP/1.1"), [200]),
    "two requests at once": (GET + b"\r\n" + GET + CLOSE + b"\r\n", [200, 200]),
    "three requests at once": (post() + post() + GET + CLOSE + b"\r\n", [200, 200, 200]),
    "chunks": (chunked(BODY[:50], BODY[50:]), [200]),
    "a chunk extension": (chunked(BODY, size=b"%x;a=b"), [200]),
    "a trailer": (chunked(BODY, trailer=b"X-T: 1\r\n"), [200]),
    "100-continue": (post(b"Expect: 100-continue\r\n"), [100, 200]),
    "another expectation": (post(b"Expect: tea\r\n"), [200]),
    "an absolute target": (head(HOST, method=b"GET http://x/livez HTTP/1.1"), [200]),
    "a target of bytes": (head(HOST, method=b"GET /%6civez HTTP/1.1"), [200]),
    "a query": (head(HOST, method=b"GET /livez?a=b HTTP/1.1"), [200]),
    "a wrong escape": (head(HOST, method=b"GET /%zz HTTP/1.1"), [404]),
    "an asterisk": (head(HOST, method=b"OPTIONS * HTTP/1.1"), [404]),
    "empty lines before": (b"\r\n\r\n" + GET + b"\r\n", [200]),
    "a value outside ASCII": (head(HOST, b"A: \xe4\xff"), [200]),
    "a GET with a body, then another": (
        head(HOST, b"Content-Length: 5") + b"hello" + GET + CLOSE + b"\r\n",
        [200, 200],
    ),
    "60 KB of header": (head(HOST, b"A: " + b"a" * 60_000), [200]),
    # Framing that two readers may understand differently is refused: request smuggling.
    "both framings": (
        head(HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked", method=b"POST /classify HTTP/1.1")
        + b"0\r\n\r\n",
        [400],
    ),
    "equal lengths twice": (post(b"Content-Length: %d\r\n" % len(BODY)), [400]),
    "other lengths": (post(b"Content-Length: 3\r\n"), [400]),
    "a list of lengths": (head(HOST, b"Content-Length: 3, 3", method=b"POST /classify HTTP/1.1") + b"abc", [400]),
    "a length with a sign": (head(HOST, b"Content-Length: +3", method=b"POST /classify HTTP/1.1") + b"abc", [400]),
    "a negative length": (head(HOST, b"Content-Length: -1", method=b"POST /classify HTTP/1.1") + b"abc", [400]),
    "a hexadecimal length": (head(HOST, b"Content-Length: 0x3", method=b"POST /classify HTTP/1.1") + b"abc", [400]),
    "an endless length": (head(HOST, b"Content-Length: " + b"9" * 30, method=b"POST /classify HTTP/1.1"), [400]),
    "chunks in HTTP/1.0": (
        head(HOST, b"Transfer-Encoding: chunked", method=b"POST /classify HTTP/1.0") + b"0\r\n\r\n",
        [400],
    ),
    "chunks twice": (
        head(HOST, b"Transfer-Encoding: chunked, chunked", method=b"POST /classify HTTP/1.1") + b"0\r\n\r\n",
        [400],
    ),
    "another transfer coding": (head(HOST, b"Transfer-Encoding: gzip", method=b"POST /classify HTTP/1.1"), [501]),
    "the identity coding": (head(HOST, b"Transfer-Encoding: identity", method=b"POST /classify HTTP/1.1"), [501]),
    "nearly chunked": (head(HOST, b"Transfer-Encoding: xchunked", method=b"POST /classify HTTP/1.1"), [501]),
    "a size that is none": (chunked(BODY, size=b"zz"), [400]),
    "a negative size": (chunked(BODY, size=b"-5"), [400]),
    "a size that is too small": (chunked(BODY, size=b"5"), [400]),
    "an endless size": (chunked(BODY, size=b"f" * 18), [400]),
    "a size before a bare LF": (chunked(BODY, end=b"\n"), [400]),
    "bare LF": (GET.replace(b"\r\n", b"\n") + b"\n", [400]),
    "bare CR": (b"GET /livez HTTP/1.1\rHost: x\r\r", [400]),
    "a space before the colon": (head(b"Host : x"), [400]),
    "a folded line": (head(HOST, b"A: a", b" b"), [400]),
    "a folded first line": (head(b" Host: x"), [400]),
    "no Host": (head(), [400]),
    "two Hosts": (head(HOST, b"Host: y"), [400]),
    "CONNECT": (head(HOST, method=b"CONNECT x:80 HTTP/1.1"), [501]),
    "a method in small letters": (head(HOST, method=b"get /livez HTTP/1.1"), [400]),
    "an unknown method": (head(HOST, method=b"FROB /livez HTTP/1.1"), [400]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "HTTP/2 in a line": (head(HOST, method=b"GET /livez HTTP/2.0"), [501]),
    "HTTP/1.2": (head(HOST, method=b"GET /livez HTTP/1.2"), [400]),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), [400]),
    "no text": (b"\x00\x01\x02\r\n\r\n", [400]),
    "a zero byte in a value": (head(HOST, b"A: a\0b"), [400]),
    "a zero byte in a name": (head(HOST, b"A\0: a"), [400]),
    "an empty name": (head(HOST, b": a"), [400]),
    "no target": (head(HOST, method=b"GET HTTP/1.1"), [400]),
    "a space in the target": (head(HOST, method=b"GET /li vez HTTP/1.1"), [400]),
    "a target outside ASCII": (head(HOST, method=b"GET /\xe4 HTTP/1.1"), [400]),
    "100 KB of header": (head(HOST, b"A: " + b"a" * 100_000), [431]),
    "10,000 headers": (head(HOST, *(b"A%d: a" % i for i in range(10_000))), [431]),
    "a header that does not end": (GET + b"A: " + b"a" * 300_000, [431]),
    "100 KB of target": (head(HOST, method=b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), [431]),
}


@pytest.fixture(scope="module")
def port(serve: Serve) -> Iterator[int]:
    settings = {"DUET_HEAD_SECONDS": str(HEAD_SECONDS), "DUET_KEEP_ALIVE_SECONDS": "1", "DUET_PEER_CONNECTIONS": "40"}
    with serve("classification", **settings) as server:
        yield int(server.url.rpartition(":")[2])


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(PATIENCE)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    came = b""
    while part := connection.recv(65536):
        came += part
    return came


def statuses(came: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", came)]


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


def test_a_client_that_does_not_read_its_answer_is_disconnected(serve: Serve) -> None:
    body = json.dumps({"count": 256, "seed": 1, "format": "array", "model": "digits-vae"}).encode()
    request = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with serve("generation", DUET_REQUEST_TIMEOUT_MS="2000") as server:

        def in_flight() -> bool:
            return 'duet_requests_in_flight{route="/generate"} 1.0' in httpx.get(f"{server.url}/metrics").text

        with connect(int(server.url.rpartition(":")[2])) as connection:
            connection.sendall((request % len(body) + body) * 40)  # more than the system buffers
            end, seen = time.monotonic() + PATIENCE, 0
            while seen < 20:  # one of them waits for the client to read
                assert time.monotonic() < end
                seen = seen + 1 if in_flight() else 0
                time.sleep(0.02)
            while in_flight():
                assert time.monotonic() < end
                time.sleep(0.2)
            with contextlib.suppress(ConnectionError):
                assert rest(connection).count(b"HTTP/1.1 200 ") < 40
