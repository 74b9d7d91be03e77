"""The load test passes on a server that answers right, and fails on one that answers nonsense with status 200."""

import csv
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.loadtests.runs import PROGRAM, once, outcomes, report

V2 = "/v2/models/{model}/infer"
ROUTES = {"/classify", "/generate", "/interpolate", "/reconstruct", "/score", V2}
ENOUGH = 5  # requests of each
PATIENCE = 60  # seconds

pytestmark = [pytest.mark.slow, pytest.mark.server]


def locust(url: str, folder: Path, routes: set[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Load until every one of `routes` has had some requests: the exit code, and each route's row of the table."""
    log = folder / "log"
    options = ["--host", url, "-u", "10", "-r", "10", "--user-rate", "5"]
    options += ["--csv", str(folder / "load"), "--report", str(folder)]
    with log.open("w") as stream:
        process = subprocess.Popen([*PROGRAM, *options, *arguments], cwd=ROOT, stdout=stream, stderr=stream)
    try:
        end = time.monotonic() + PATIENCE
        while any(requests(folder).get(route, 0) < ENOUGH for route in routes):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        process.terminate()
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    return code, table(folder)


def table(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / "load_stats.csv"
    if not path.exists():
        return {}
    with path.open() as stream:
        return {row["Name"]: row for row in csv.DictReader(stream) if row["Name"] != "Aggregated"}


def requests(folder: Path) -> dict[str, int]:
    """Locust writes the table while this reads it, so a row may be incomplete."""
    return {name: int(row["Request Count"] or 0) for name, row in table(folder).items()}


def test_no_request_fails_on_a_real_server(allinone_url: str, tmp_path: Path) -> None:
    code, rows = locust(f"{allinone_url}/", tmp_path, ROUTES)  # a slash at the end changes nothing
    assert set(rows) == ROUTES
    failures = (tmp_path / "load_failures.csv").read_text()
    assert {row["Failure Count"] for row in rows.values()} == {"0"}, failures
    found = outcomes(tmp_path)
    assert found.pop("right") >= ENOUGH * len(ROUTES)
    assert set(found.values()) == {0}
    assert (tmp_path / "report.html").read_text().count("<svg") == 2
    assert code in (0, 3)  # 3 on a machine that is too busy to send in time


def test_a_user_class_and_a_tag_choose_requests(allinone_url: str, tmp_path: Path) -> None:
    chosen = {"/generate", "/interpolate"}
    code, rows = locust(allinone_url, tmp_path, chosen, "GenerationUser", "--tags", "fresh")
    assert set(rows) == chosen
    assert code in (0, 3)


class Nonsense(BaseHTTPRequestHandler):
    """Says what another service serves, and answers with status 200 and the right form, but wrong content."""

    protocol_version = "HTTP/1.1"
    label = 0
    truthful = ""  # the URL of the other service

    def do_GET(self) -> None:
        with urllib.request.urlopen(self.truthful + self.path) as answer:
            self.send(answer.read())

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/v2"):
            self.send(b'{"outputs": [{"name": "probabilities", "shape": [1, 1], "data": [2]}]}')
            return
        request = json.loads(content)
        if "class" in request:  # what is drawn before the load begins
            drawn = urllib.request.Request(self.truthful + self.path, content, {"Content-Type": "application/json"})
            with urllib.request.urlopen(drawn) as answer:
                self.send(answer.read())
            return
        Nonsense.label = (Nonsense.label + 1) % 10  # another answer to the same question
        top = [{"label": str(self.label), "index": self.label, "probability": 1.0}]
        body = json.dumps(
            {
                "predictions": [top[0] | {"top": top} for _ in request.get("images", [])],
                "scores": [{"p_value": 0.01, "anomalous": False, "score": 1.0} for _ in request.get("images", [])],
                "alpha": 0.05,
                "smallest_p_value": 0.001,
                "seed": request.get("seed"),
                "images": [str(self.label)] * request.get("count", 4),
                "errors": [0.5],
            }
        ).encode()
        self.send(body)

    def send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nonsense_url(allinone_url: str) -> Iterator[str]:
    Nonsense.truthful = allinone_url
    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_wrong_answers_with_status_200_fail(nonsense_url: str, tmp_path: Path) -> None:
    code, rows = locust(nonsense_url, tmp_path, ROUTES)
    for name, row in rows.items():
        assert int(row["Failure Count"]) > 0, name
    assert outcomes(tmp_path)["wrong"] > 0
    assert code in (1, 3)


def test_bad_input_ends_with_status_2(allinone_url: str, tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "trace.jsonl").write_text('{"at": 0, "route": "/classify"}\n{"at": 1}\n')
    cases = {
        ("--host", f"http://127.0.0.1:{unused_tcp_port}", "--rate", "steady:1:1"): "is --host the address of a running",
        ("--host", "localhost:1", "--rate", "steady:1:1"): "it must begin with http:// or https://",
        ("--host", allinone_url, "--rate", "steady:1"): "the form is steady:RATE:SECONDS",
        ("--host", allinone_url, "--replay", str(tmp_path / "trace.jsonl")): "line 2: it must have the fields",
        ("--host", allinone_url, "--images", str(tmp_path)): "it has no file that ends in",
        ("--host", allinone_url, "--user-rate", "0"): "--user-rate 0.0: it must be above 0",
        ("--rate", "steady:1:1"): "--host is missing",
    }
    for arguments, said in cases.items():
        status, printed = once(*arguments)
        assert said in printed
        assert status == 2, printed


def test_a_trace_is_replayed(allinone_url: str, tmp_path: Path) -> None:
    lines = [{"at": 50 + index / 20, "route": "/classify", "items": 1 + index % 3} for index in range(30)]
    lines.append({"at": 52, "route": "/score"})
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("--host", allinone_url, "--replay", str(tmp_path / "trace.jsonl"), "--report", str(tmp_path))
    status, printed = once(*arguments)
    assert status in (0, 3), printed
    routes = {row["route"]: row["outcomes"]["right"] for row in report(tmp_path)["routes"]}
    assert routes == {"/classify": 30, "/score": 1, "all": 31}


def test_pictures_of_a_folder_are_sent_and_their_labels_checked(allinone_url: str, tmp_path: Path) -> None:
    for label in ("3", "4"):  # every picture is black, so one of the two labels is wrong
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("L", (8, 8), number).save(tmp_path / label / f"{number}.png")
    arguments = ("--images", str(tmp_path), "--rate", "steady:10:3", "--tags", "fresh", "--report", str(tmp_path))
    status, printed = once("--host", allinone_url, *arguments, "ClassificationUser")
    assert f"8 of 8 pictures of {tmp_path}" in printed
    assert outcomes(tmp_path)["wrong"] > 0, printed
    assert status in (1, 3), printed
