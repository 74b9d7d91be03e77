"""Good requests in odd dress are taken; what is hardly HTTP at all harms nobody."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from services.settings import Settings
from training.data.digits import load_digits

pytestmark = pytest.mark.server

BODY_BYTES = int(Settings.model_fields["body_bytes"].default)
IMAGE = load_digits().test.images[0, 0].tolist()
GOOD = {"images": [IMAGE]}
BODY = json.dumps(GOOD).encode()

Rows = list[list[int]]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda image: [[-0.0 if pixel == 0 else float(pixel) for pixel in row] for row in image], id="-0.0"
        ),
        pytest.param(lambda image: [image], id="channels first"),
        pytest.param(lambda image: [[[pixel] for pixel in row] for row in image], id="channels last"),
    ],
)
def test_other_ways_to_write_an_image_mean_the_same(server: Any, write: Callable[[Rows], object]) -> None:
    expected = server.answers("/classify", GOOD)
    assert server.client.post("/classify", json={"images": [write(IMAGE)]}).json() == expected


@pytest.mark.parametrize("path", ["/%63lassify", "/classify?images=none", "/classify#part", "/./classify"])
def test_other_ways_to_write_a_path_mean_the_same(server: Any, path: str) -> None:
    assert server.client.post(path, json=GOOD).json() == server.answers("/classify", GOOD)


@pytest.mark.parametrize(
    "media_type", [None, "APPLICATION/JSON", "application/json; charset=utf-8", "application/json;"]
)
def test_json_needs_no_exact_media_type(server: Any, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    assert server.client.post("/classify", content=BODY, headers=headers).json() == server.answers("/classify", GOOD)


def test_of_a_key_given_twice_the_last_counts(server: Any) -> None:
    body = b'{"images": [], ' + BODY[1:]
    response = server.client.post("/classify", content=body, headers={"Content-Type": "application/json"})
    assert response.json() == server.answers("/classify", GOOD)


def speak(url: str, *sent: bytes, end: bool = False) -> bytes:
    """Send these bytes as they are; returns all that comes back until the server closes."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=30) as connection:
        for data in sent:
            connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        heard = b""
        while data := connection.recv(65536):
            heard += data
        return heard


def head(*lines: str, route: str = "/classify") -> bytes:
    fixed = (f"POST {route} HTTP/1.1", "Host: test", "Content-Type: application/json", "Connection: close")
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def test_expect_100_continue_is_answered_before_the_body(server: Any) -> None:
    heard = speak(server.url, head("Expect: 100-continue", f"Content-Length: {len(BODY)}"), BODY)
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_expect_100_continue_is_refused_at_once_for_a_body_too_large(server: Any) -> None:
    heard = speak(server.url, head("Expect: 100-continue", f"Content-Length: {BODY_BYTES + 1}"))
    assert heard.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("route", ["/classify", "/generate", "/interpolate", "/reconstruct", "/score"])
@pytest.mark.parametrize("length", ["Content-Length: 999999", "Transfer-Encoding: chunked"])
def test_a_body_that_never_ends_is_given_up_at_the_deadline(server: Any, route: str, length: str) -> None:
    heard = speak(server.url, head(length, "X-Request-Timeout-Ms: 50", route=route), b"1\r\n{\r\n")
    assert heard.startswith(b"HTTP/1.1 504 ")
    assert json.loads(heard.partition(b"\r\n\r\n")[2])["field"] == "X-Request-Timeout-Ms"
    server.answers("/classify", GOOD)


def test_a_client_that_leaves_within_its_body_harms_nobody(server: Any) -> None:
    speak(server.url, head(f"Content-Length: {len(BODY) + 1}"), BODY, end=True)
    server.answers("/classify", GOOD)
    assert server.surprises() == 0


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(head("Content-Length: -1"), id="negative length"),
        pytest.param(head("Content-Length: 1e3"), id="length that is no number"),
        pytest.param(head("Content-Length: " + "9" * 5000), id="length of 5,000 digits"),
        pytest.param(head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", id="length and chunks"),
        pytest.param(head("Transfer-Encoding: chunked") + b"zz\r\n", id="chunk that is no number"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"BREW /classify HTTP/1.1\r\nHost: test\r\n\r\n", id="a method of another protocol"),
        pytest.param(b"POST classify\r\n\r\n", id="no HTTP version"),
    ],
)
def test_what_is_no_http_is_refused_and_harms_nobody(server: Any, sent: bytes) -> None:
    heard = speak(server.url, sent, end=True)
    assert heard == b"" or heard.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in heard
    server.answers("/classify", GOOD)


def test_many_large_files_are_refused_together_before_any_is_decoded(allinone_url: str) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (2500, 2500)).save(file, "PNG")
    parts = [("images", ("large.png", file.getvalue())) for _ in range(3)]
    answer = httpx.post(f"{allinone_url}/classify", files=parts, timeout=60)
    assert answer.status_code == 413
    assert answer.json()["field"] == "images[2]", "two fit into sixteen million pixels, three do not"


def test_probes_are_answered_while_a_large_file_is_decoded(allinone_url: str) -> None:
    """Decoding is off the event loop: many probes pass during one decode."""
    file = io.BytesIO()
    Image.new("RGBA", (3900, 3900)).save(file, "PNG")
    done = threading.Event()
    answers: list[int] = []

    def send() -> None:
        answers.append(
            httpx.post(f"{allinone_url}/classify", files={"images": file.getvalue()}, timeout=60).status_code
        )
        done.set()

    with httpx.Client() as client:
        thread = threading.Thread(target=send)
        thread.start()
        probes = 0
        while not done.is_set():
            assert client.get(f"{allinone_url}/livez").status_code == 200
            probes += 1
        thread.join()
    assert answers == [200]
    assert probes > 20
