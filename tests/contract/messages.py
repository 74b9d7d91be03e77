"""HTTP requests that are right, odd or wrong, as bytes, with the statuses that RFC 9110 and 9112 want."""

from __future__ import annotations

import json
import re
import socket

from services.protocol.native.requests import FOUR
from tests.conftest import PATIENCE

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
