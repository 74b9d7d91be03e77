"""wrk as closed-loop load source, with a Lua script made on the fly. Any failed request fails the benchmark."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench import cores
from loadtests.bench.request import Request
from loadtests.bench.server import Server

SCRIPT = """\
wrk.method = "POST"
local file = io.open([==[{body}]==], "rb")
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, ',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  io.write(string.format(
    '"status": %d, "socket": %d, "timeout": %d}}\\n', e.status, e.connect + e.read + e.write, e.timeout))
end
"""


@dataclass(frozen=True)
class Measurement:
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    requests: int


def require() -> str:
    """The version of wrk."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (Debian: apt-get install wrk)")
    text = subprocess.run(["wrk", "--version"], check=False, capture_output=True, text=True)
    return (text.stdout + text.stderr).splitlines()[0].partition(" Copyright")[0]


def script(request: Request, body: Path) -> str:
    headers = "\n".join(f"wrk.headers[ [==[{key}]==] ] = [==[{value}]==]" for key, value in request.headers.items())
    return SCRIPT.format(body=body, headers=headers)


def load(server: Server, request: Request, *, connections: int, seconds: int) -> Measurement:
    """Load a server for some seconds from the load core.

    Exits with a message if one request failed: a benchmark of errors says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, lua = Path(folder, "body"), Path(folder, "request.lua")
        body.write_bytes(request.body)
        lua.write_text(script(request, body))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(lua)]
        run = subprocess.run(
            cores.pinned(cores.LOAD, [*command, server.url + request.path]),
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    if run.returncode:
        sys.exit(f"wrk failed on {server.name}: {run.stdout}{run.stderr}")
    return parse(run.stdout, f"{server.name} {request.path}")


def parse(output: str, what: str) -> Measurement:
    """The last line of wrk's output, which the script wrote."""
    summary = json.loads(output.strip().splitlines()[-1])
    failed = {kind: summary[kind] for kind in ("status", "socket", "timeout") if summary[kind]}
    if failed or not summary["requests"]:
        sys.exit(f"{what}: of {summary['requests']} requests failed: {failed or 'all, for none was answered'}")
    rate = summary["requests"] / summary["seconds"]
    return Measurement(rate, summary["p50_ms"], summary["p99_ms"], summary["requests"])
