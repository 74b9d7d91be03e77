"""Runs of Locust with the users of this repository, and what they reported."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import PATIENCE, ROOT, clean_environment, free_port
from tests.programs import answering

PROGRAM = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]


def once(*arguments: str) -> tuple[int, str]:
    """A run that ends by itself: its exit status and what it printed."""
    run = subprocess.run([*PROGRAM, *arguments], check=False, capture_output=True, text=True, cwd=ROOT, timeout=180)
    return run.returncode, run.stdout + run.stderr


class Run:
    """A run to which something happens before it ends."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.log = folder, folder / "locust.log"
        with self.log.open("w") as stream:
            command = [*PROGRAM, *arguments, "--report", str(folder)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)

    def wait_for(self, state: Callable[[], bool]) -> None:
        """Wait until something is so, which it must be while Locust runs."""
        end = time.monotonic() + PATIENCE
        while not state():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """The exit status and what was printed."""
        return self.process.wait(PATIENCE), self.log.read_text()


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Run]:
    run = Run(folder, *arguments)
    try:
        yield run
    finally:
        run.process.send_signal(signal.SIGCONT)
        run.process.kill()
        run.process.wait()


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def outcomes(folder: Path) -> dict[str, int]:
    """Counts over all routes."""
    found: dict[str, int] = report(folder)["routes"][-1]["outcomes"]
    return found


class Known:
    """A server that draws after known delays (`tests/loadtests/delays.py`).

    Attributes:
        process: the server's, to be stopped or killed.
    """

    def __init__(self, url: str, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.url, self.log, self.process = url, log, process

    def delays(self) -> list[float]:
        """Of the requests that came so far, in seconds."""
        return [float(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@contextlib.contextmanager
def known_delays(folder: Path) -> Iterator[Known]:
    port, log = free_port(), folder / "delays"
    command = [sys.executable, "-m", "tests.loadtests.delays", str(port), str(log)]
    environment = clean_environment(PYTHONPATH=str(ROOT))
    url = f"http://127.0.0.1:{port}"
    with answering(command, f"{url}/models", folder / "server.log", environment) as process:
        yield Known(url, log, process)
