"""The load test passes on a server that answers right, and fails on one that answers nonsense with status 200."""

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ROUTES = {"/classify", "/generate", "/interpolate", "/reconstruct", "/score"}
ENOUGH = 5  # requests of each
PATIENCE = 60  # seconds

pytestmark = [pytest.mark.slow, pytest.mark.server]


def locust(url: str, folder: Path, routes: set[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Load until every one of `routes` has had some requests: the exit code, and each route's row of the table."""
    log = folder / "log"
    program = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", url]
    options = ["--headless", "--only-summary", "-u", "6", "-r", "6", "--csv", str(folder / "load")]
    with log.open("w") as stream:
        process = subprocess.Popen([*program, *options, *arguments], cwd=ROOT, stdout=stream, stderr=stream)
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
    assert code == 0


def test_a_user_class_and_a_tag_choose_requests(allinone_url: str, tmp_path: Path) -> None:
    chosen = {"/generate", "/interpolate"}
    code, rows = locust(allinone_url, tmp_path, chosen, "GenerationUser", "--tags", "fresh")
    assert set(rows) == chosen
    assert code == 0


class Nonsense(BaseHTTPRequestHandler):
    """Answers every POST with status 200 and an answer of the right form, but wrong content."""

    protocol_version = "HTTP/1.1"
    label = 0

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
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
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def nonsense_url() -> Iterator[str]:
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
    assert code == 1
