"""The log in JSON: every line of every process parses, there are few of them, and none holds a secret or pixels."""

import base64
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Serve, Server, wait_until_answers

pytestmark = [pytest.mark.slow, pytest.mark.server]

SECRET = "Bearer k9-planted-secret"
PIXELS = base64.b64encode(b"planted pixels, no picture").decode()
REFUSED = 10_000


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Iterator[Server]:
    with serve(
        "classification", DUET_LOG_FORMAT="json", DUET_REDIS_URL="redis://:planted-password@127.0.0.1:1/0"
    ) as one:
        yield one


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def refuse(server: Server, count: int) -> None:
    """Requests that are refused, many at once on one connection."""
    body = json.dumps({"images": [PIXELS], "model": "nobody"}).encode()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: {SECRET}\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60) as connection:
        for _ in range(count // 100):
            connection.sendall(request * 100)
            answered = b""
            while answered.count(b"HTTP/1.1 ") < 100 or not answered.endswith(b"}"):
                answered += connection.recv(2**20)
            assert b"HTTP/1.1 200" not in answered


def test_faults_and_refused_requests_leave_few_lines_that_parse(server: Server) -> None:
    refuse(server, REFUSED)
    before = lines(server)
    assert len(before) < 100
    (worker,) = psutil.Process(server.process.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_until_answers(server, ready=True)
    httpx.post(f"{server.url}/classify", json={"images": [PIXELS]}, headers={"Authorization": SECRET})
    assert server.stop() == 0
    found = lines(server)
    assert len(found) > len(before)
    for line in found:
        assert line.keys() >= {"time", "level", "logger", "process", "message"}
    assert len({line["process"] for line in found}) >= 3  # the parent and both workers
    text = server.log.read_text()
    for planted in (SECRET, PIXELS, "planted-password"):
        assert planted not in text
