"""Programs that tests start: each is waited for until it answers, and ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from tests.conftest import PATIENCE


@contextlib.contextmanager
def answering(
    command: Sequence[str | Path], url: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block, which begins when it answers at a URL with success.

    Args:
        command: the program and its words.
        url: what is asked.
        log: a file for what it prints.
        environment: its variables; None: those of this process.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, timeout=5).is_success:
                    break
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)  # a test may have stopped it
        process.terminate()
        process.wait(timeout=PATIENCE)
