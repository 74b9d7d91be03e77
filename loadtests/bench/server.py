"""Servers under test: each on the server core, with all its processes, for the length of a `with` block."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from loadtests.bench import cores
from loadtests.bench.request import Request

PATIENCE = 120  # seconds until a server must be ready


@dataclass(frozen=True)
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> psutil.Process:
        """The process that computes: of BentoML's arbiter and worker the one with more memory."""
        parent = psutil.Process(self.process.pid)
        return max([parent, *parent.children(recursive=True)], key=lambda process: process.memory_info().rss)

    def cpu_seconds(self) -> float:
        """CPU time of all the running processes of the server so far, user and system."""
        used = 0.0
        parent = psutil.Process(self.process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def check(self, request: Request, expected: tuple[int, float]) -> dict[str, str]:
        """Ask once: the answer must be right. Returns its headers, names in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", request.path, request.body, request.headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.status != 200:
            sys.exit(f"{self.name}: {request.path} answered {answer.status} {body[:300]!r}; its log is {self.log}")
        got = request.read(body, int(headers.get("inference-header-content-length", 0)))
        if got[0] != expected[0] or abs(got[1] - expected[1]) > 1e-3:
            sys.exit(f"{self.name}: {request.path} answered class, probability {got}, but the graph gives {expected}")
        return headers


@contextlib.contextmanager
def running(name: str, command: list[str], *, ready: str = "/readyz", **environment: str) -> Iterator[Server]:
    """Start `command` ({port} stands for a free port) on the server core, wait for a 200, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="duet-bench-"))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DUET_", "BENTOML_"))}
    # A home of its own, unless one is given: BentoML's servers share and wipe metric files below it.
    base = {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(cores.ROOT)}
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            cores.pinned(cores.SERVER, [part.replace("{port}", str(port)) for part in command]),
            env=kept | base | environment,
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # so that the whole family can be ended
        )
    server = Server(name, port, process, log)
    try:
        _wait(server, ready)
        yield server
    finally:
        stop(process)
    shutil.rmtree(folder)  # after a failure its log stays


def _wait(server: Server, path: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(server.url + path, timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    sys.exit(f"{server.name} did not become ready; its log, {server.log}, ends with:\n{server.log.read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that was started in a session of its own, and whatever it has started."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):  # whatever the family left behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def duet(home: Path, tag: str, **settings: str) -> contextlib.AbstractContextManager[Server]:
    command = [sys.executable, "-m", "training", "serve", "classification", "--port", "{port}", "--models", tag]
    return running("duet", command, BENTOML_HOME=str(home.absolute()), DUET_DRAIN_SECONDS="0", **settings)


def stock_bentoml(graph: Path) -> contextlib.AbstractContextManager[Server]:
    command = [sys.executable, "-m", "bentoml", "serve", "loadtests.bench.peers.stock_bentoml:Stock"]
    options = ["--host", "127.0.0.1", "--port", "{port}", "--working-dir", str(cores.ROOT)]
    return running("stock BentoML", [*command, *options], GRAPH=str(graph.absolute()))


def bare_uvicorn(graph: Path) -> contextlib.AbstractContextManager[Server]:
    command = [sys.executable, "-m", "loadtests.bench.peers.bare_uvicorn", str(graph.absolute()), "{port}"]
    return running("bare uvicorn", command)
