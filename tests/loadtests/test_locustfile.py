"""The load test passes on a server that answers right, and fails on one that answers nonsense with status 200."""

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.server]


def locust(url: str, results: Path, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and the row of each route in locust's table."""
    program = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", url]
    options = ["--headless", "--only-summary", "-u", "6", "-r", "6", "-t", "6s", "--csv", str(results / "load")]
    run = subprocess.run([*program, *options, *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    table = results / "load_stats.csv"
    assert table.exists(), run.stdout + run.stderr
    with table.open() as stream:
        rows = {row["Name"]: row for row in csv.DictReader(stream)}
    del rows["Aggregated"]
    return run.returncode, rows


def test_no_request_fails_on_a_real_server(allinone_url: str, tmp_path: Path) -> None:
    code, rows = locust(allinone_url, tmp_path)
    failures = (tmp_path / "load_failures.csv").read_text()
    assert set(rows) == {"/classify", "/generate", "/interpolate", "/reconstruct", "/score"}
    assert all(int(row["Request Count"]) > 0 for row in rows.values())
    assert {row["Failure Count"] for row in rows.values()} == {"0"}, failures
    assert code == 0


def test_a_user_class_and_a_tag_choose_requests(allinone_url: str, tmp_path: Path) -> None:
    code, rows = locust(allinone_url, tmp_path, "--tags", "fresh", "-t", "3s", "GenerationUser")
    assert set(rows) == {"/generate", "/interpolate"}
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
    code, rows = locust(nonsense_url, tmp_path)
    assert set(rows) == {"/classify", "/generate", "/interpolate", "/reconstruct", "/score"}
    for name, row in rows.items():
        assert int(row["Failure Count"]) > 0, name
    assert code == 1
