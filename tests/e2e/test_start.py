"""`duet serve`: one process becomes BentoML's parent, and its worker is a fork of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Server, clean_environment, free_port, wait_until_answers

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE = 60


@pytest.fixture(scope="module")
def started(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with duet_serve(model_store, tmp_path_factory.mktemp("start") / "log") as server:
        yield server


@contextlib.contextmanager
def duet_serve(home: Path, log: Path, **settings: str) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "training", "serve", "allinone", "--port", str(port)]
    environment = clean_environment(BENTOML_HOME=str(home), DUET_DRAIN_SECONDS="0", **settings)
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until_answers(server, ready=True)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def worker_of(server: Server) -> psutil.Process:
    [worker] = psutil.Process(server.process.pid).children(recursive=True)
    return worker


def sent_to_default(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether the kernel does with a signal what it does by default."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
    )
    bit = 1 << (number - 1)
    return not (int(status["SigIgn"], 16) & bit or int(status["SigCgt"], 16) & bit)


def test_the_command_is_the_parent_and_its_one_child_the_worker(started: Server) -> None:
    worker = worker_of(started)
    assert worker.ppid() == started.process.pid
    if sys.platform == "linux":  # a fork has its parent's command line
        assert worker.cmdline() == psutil.Process(started.process.pid).cmdline()
        assert not sent_to_default(worker, signal.SIGPIPE), "a client that leaves would end the worker"
        assert not sent_to_default(psutil.Process(started.process.pid), signal.SIGPIPE)
        assert os.getsid(worker.pid) == worker.pid, "Ctrl-C reaches the parent alone"


def test_the_worker_holds_no_file_of_its_parent(started: Server) -> None:
    """But the listener; circus's own sockets would keep its port in use."""
    listeners = [c.laddr.port for c in worker_of(started).net_connections() if c.status == psutil.CONN_LISTEN]
    assert listeners == [int(started.url.rpartition(":")[2])]


def test_every_model_says_in_the_log_that_it_is_served(started: Server) -> None:
    served = httpx.get(f"{started.url}/models").json()["models"]
    lines = [line for line in started.log.read_text().splitlines() if "[duet] serving " in line]
    assert len(lines) == len(served) > 0
    assert "[cli] Starting production HTTP BentoServer" in started.log.read_text()


def test_a_worker_that_died_is_followed_by_another(model_store: Path, tmp_path: Path) -> None:
    with duet_serve(model_store, tmp_path / "log") as server:
        first = worker_of(server)
        first.kill()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(ValueError, psutil.NoSuchProcess, httpx.TransportError):
                if worker_of(server).pid != first.pid and httpx.get(f"{server.url}/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        else:
            pytest.fail(server.log.read_text()[-3000:])
        assert server.stop() == 0


def test_ctrl_c_ends_both(model_store: Path, tmp_path: Path) -> None:
    with duet_serve(model_store, tmp_path / "log") as server:
        worker = worker_of(server)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert not worker.is_running()
        assert "Traceback" not in server.log.read_text()
