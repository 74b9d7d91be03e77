"""Locust's FastHttpUser as second load source. It is slower than the server, so it checks latency, not throughput."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench import cores
from loadtests.bench.request import Request
from loadtests.bench.server import Server


@dataclass(frozen=True)
class LocustResult:
    requests_per_second: float
    p50_ms: float
    failures: int


def locust(server: Server, request: Request, *, users: int, seconds: int) -> LocustResult:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "body").write_bytes(request.body)
        Path(folder, "request.json").write_text(json.dumps({"path": request.path, "headers": request.headers}))
        command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locust_user.py"))]
        options = [
            "--host",
            server.url,
            "--headless",
            "-u",
            str(users),
            "-r",
            str(users),
            "-t",
            f"{seconds}s",
            "--json",
        ]
        run = subprocess.run(
            cores.pinned(cores.LOAD, [*command, *options]),
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"BENCH_REQUEST": folder},
            timeout=seconds + 60,
        )
    return parse(run.stdout, run.stderr)


def parse(output: str, log: str) -> LocustResult:
    """Locust's JSON: response times are counts by milliseconds, rounded."""
    try:
        (row,) = json.loads(output)
    except ValueError:
        sys.exit(f"locust gave no result: {output[-500:]}{log[-1500:]}")
    elapsed = row["last_request_timestamp"] - row["start_time"]
    if row["num_failures"]:
        sys.exit(f"locust: {row['num_failures']} of {row['num_requests']} requests failed: {log[-1500:]}")
    times = sorted((float(ms), count) for ms, count in row["response_times"].items())
    seen = itertools.accumulate(count for _, count in times)
    p50 = next(ms for (ms, _), upto in zip(times, seen, strict=True) if upto >= row["num_requests"] / 2)
    return LocustResult(row["num_requests"] / max(elapsed, 1e-9), p50, row["num_failures"])
