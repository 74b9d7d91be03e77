"""wrk sends the bytes it is given, and any failed request fails the benchmark."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.bench import wrk
from loadtests.bench.request import Request

SUMMARY = {"requests": 10, "seconds": 2.0, "p50_ms": 1.0, "p99_ms": 3.0, "status": 0, "socket": 0, "timeout": 0}


def output(**changes: int) -> str:
    return f"Running 2s test\n  10 requests\n\n{json.dumps(SUMMARY | changes)}\n"


def test_the_rate_is_requests_by_seconds() -> None:
    assert wrk.parse(output(), "x") == wrk.Measurement(5.0, 1.0, 3.0, 10)


@pytest.mark.parametrize("kind", ["status", "socket", "timeout"])
def test_one_failed_request_fails(kind: str) -> None:
    with pytest.raises(SystemExit, match=f"x: .*{kind}"):
        wrk.parse(output(**{kind: 1}), "x")


def test_no_request_fails() -> None:
    with pytest.raises(SystemExit, match="none was answered"):
        wrk.parse(output(requests=0), "x")


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: tuple[str, dict[str, str], bytes] | None = None
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Recorder.seen = (self.path, dict(self.headers), body)
        self.send_response(Recorder.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(name="recorder", url=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.server
def test_path_headers_and_binary_body_arrive_as_they_are(recorder: Any) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed (Debian: apt-get install wrk)")
    body = bytes(range(256)) + b"]==] \" '"
    headers = {"Inference-Header-Content-Length": "7", "Content-Type": 'multipart/form-data; boundary="a b"'}
    request = Request("/v2/models/m/infer", headers, body, 1, lambda body, length: (0, 0.0))
    Recorder.status = 200
    measurement = wrk.load(recorder, request, connections=2, seconds=1)
    assert measurement.requests_per_second > 0
    assert Recorder.seen is not None
    path, sent, received = Recorder.seen
    assert (path, received) == ("/v2/models/m/infer", body)
    assert sent.items() >= headers.items()
    Recorder.status = 429
    with pytest.raises(SystemExit, match="status"):
        wrk.load(recorder, request, connections=2, seconds=1)
