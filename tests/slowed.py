"""A service of Duet whose graphs take longer: `python -m tests.slowed FILE TARGET ...`.

The file has seconds, which each batch waits in the thread that computes; it is read before each batch.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from services.commands.serve import TARGETS, Service, become_server
from services.inference.session import Session
from tests.conftest import ROOT, clean_environment, free_port
from tests.programs import answering

USUAL = 0.002  # seconds: more than a batch may take on the event loop


class Slowness:
    """Seconds that each batch takes longer, in a file."""

    def __init__(self, folder: Path, name: str = "slowness") -> None:
        self.file = folder / name
        self.set(USUAL)

    def set(self, seconds: float) -> None:
        draft = self.file.with_suffix(".draft")
        draft.write_text(str(seconds))
        draft.rename(self.file)  # is never read half-written


@contextlib.contextmanager
def slowed(name: Service, folder: Path, slowness: Slowness, **settings: str) -> Iterator[str]:
    """Host and port of a service, with the time-outs that it has in production."""
    port = free_port()
    command = [sys.executable, "-m", "tests.slowed", str(slowness.file), TARGETS[name]]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = clean_environment(PYTHONPATH=str(ROOT), **settings)
    for ours in {"DUET_REDIS_TIMEOUT_MS", "DUET_REQUEST_TIMEOUT_MS", "DUET_DEFAULT_MODELS"} - settings.keys():
        del environment[ours]
    with answering(command, f"http://127.0.0.1:{port}/readyz", folder / f"{name}-{port}.log", environment):
        yield f"127.0.0.1:{port}"


def main() -> None:
    file, run = Path(sys.argv[1]), Session.run

    def slowly(
        self: Session, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        time.sleep(float(file.read_text()))
        return run(self, inputs, outputs)

    Session.run = slowly  # type: ignore[method-assign]
    become_server(sys.argv[2:])


if __name__ == "__main__":
    main()
