"""Real servers on free ports: each is started by the tests and stopped by them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from hypothesis import settings

from services.commands.serve import TARGETS, Service

# One thread a process: tests run side by side, and threads of PyTorch that wait for each other use the processor too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # storing a model would look up names in the network

# A job in the background starts with SIGINT ignored, and so do its children: tests of Ctrl-C need the usual handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]
STORES = ROOT / ".duet" / "test-stores"
PATIENCE = 300  # seconds: a busy machine is slow, and only what hangs takes longer


# Below the ports that systems give out themselves (Linux: from 32768 on), so that between the choice of a port and its
# use no client's connection and no server's inner socket gets it. Workers that run side by side have their own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
PORTS = itertools.cycle(range(10_000 + 1_000 * WORKER, 11_000 + 1_000 * WORKER))


def pytest_runtest_setup() -> None:
    """A server that an earlier test started in this process has set up the log, and pytest would read none of it.

    BentoML's configuration of logging also disables the loggers that exist.
    """
    logging.getLogger("duet").propagate = True
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "duet":
            logger.disabled = False


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes that are no text are named by their argument, so that every worker finds the same names."""
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings that would change what a server does.

    Time-outs are long, so that a busy machine is not taken for a fault. A test of a time-out sets its own.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_"))}
    patient = {"DUET_REDIS_TIMEOUT_MS": "10000", "DUET_REQUEST_TIMEOUT_MS": "60000"}
    models = {"DUET_DEFAULT_MODELS": "digits-cnn,digits-cvae,digits-gan,digits-vae,digits-scorer"}
    return kept | {"BENTOML_DO_NOT_TRACK": "True", "DUET_DRAIN_SECONDS": "0", **patient, **models, **extra}


def fingerprint() -> str:
    """Of everything that the test models depend on."""
    digest = hashlib.sha256((ROOT / "deploy/requirements/dev.txt").read_bytes())
    for path in sorted((ROOT / "training").rglob("*.py")):
        digest.update(path.read_bytes())
    for path in (ROOT / "services" / "inference" / "bundle.py", ROOT / "tests" / "brief.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def model_store() -> Path:
    """A BENTOML_HOME with the bundles that `duet train --dataset digits --recipe demo` makes in fewer steps; read only.

    It is kept between runs for as long as the code that makes it does not change.
    """
    home = STORES / fingerprint()
    STORES.mkdir(parents=True, exist_ok=True)
    with FileLock(STORES / "lock"):  # tests run side by side: one of them trains, the others wait for it
        if home.exists():
            return home
        with tempfile.TemporaryDirectory(dir=STORES) as scratch:
            command = [sys.executable, "-m", "tests.brief", "train", "--dataset", "digits", "--recipe", "demo"]
            run = subprocess.run(
                [*command, "--out", f"{scratch}/runs"],
                env=clean_environment(BENTOML_HOME=scratch),
                cwd=ROOT,
                check=False,
                capture_output=True,
                text=True,
            )
            assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
            Path(scratch).rename(home)
            Path(scratch).mkdir()  # for the context to remove
    return home


@dataclass
class Server:
    """A running BentoML process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def serve(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start one of Duet's services: `serve("allinone", DUET_REDIS_URL=...)`.

    `home` is its BENTOML_HOME (the shared model store by default); `ready=False` waits until it answers, not until
    it is ready.
    """

    @contextlib.contextmanager
    def start(service: str, *, home: Path = model_store, ready: bool = True, **settings: str) -> Iterator[Server]:
        port = free_port()
        log = tmp_path_factory.mktemp("server") / f"{service}.log"
        # What `duet serve` becomes once it has looked at the store, and what an image runs.
        command = [sys.executable, "-m", "bentoml", "serve", TARGETS[Service(service)], "--port", str(port)]
        command += ["--host", "127.0.0.1"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                env=clean_environment(BENTOML_HOME=str(home), **settings),
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_answers(server, ready=ready)
            yield server
        finally:
            if process.poll() is None:
                server.stop()

    return start


def wait_until_answers(server: Server, *, ready: bool) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            status = httpx.get(f"{server.url}/readyz", timeout=5).status_code
            if status == 200 or not ready:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready after {PATIENCE} s:\n{server.log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def allinone_url(serve: Serve) -> Iterator[str]:
    """One all-in-one server for every test that only asks it things."""
    with serve("allinone") as server:
        yield server.url


@dataclass
class RedisServer:
    """A real redis-server without persistence."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def start_redis(directory: Path, port: int | None = None) -> Iterator[RedisServer]:
    """A Redis on a free port, or on a given one, where another was before."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = port or free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                client.recv(1)
                break
            time.sleep(0.02)
        yield RedisServer(port, process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=PATIENCE)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with start_redis(tmp_path) as server:
        yield server
