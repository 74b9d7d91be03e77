"""Every command of README, tutorials and how-to pages runs, against a real server and a copy of the models.

A comment before a block says what it needs: `minutes` and `mnist` run with `-m nightly`, `registry` where Debian's
docker-registry is installed, `cluster` nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PATIENCE, Serve, clean_environment, free_port
from tests.docs.pages import DOCS, GUIDES, ROOT, commands, fences, indented, name
from tests.registries import start_registry

pytestmark = [pytest.mark.slow, pytest.mark.server]

CLUSTER = ("podman", "kubectl", "skopeo", "cosign", "python -m deploy.rollout")  # what a reader has with a cluster
NEEDS = {"", "minutes", "mnist", "registry", "cluster"}
PROGRAMS = {
    "kubectl": "kubectl",
    "redis-server": "redis-server",
    "curl": "curl",
    "openssl": "openssl",
}  # and their Debian packages
PROBLEM = "urn:duet:problem:"
FILES = ("LICENSE", "Makefile", "README.md", "bentofile.yaml", "pyproject.toml")
FOLDERS = ("deploy", "docs", "loadtests", "services", "training")
REFERENCE = ("mnist-bayes", "mnist-cnn", "mnist-cvae")  # of the models that come with Duet, those that pages ask
STORE = """
import sys
from pathlib import Path
from services.inference import bundle, registry
for folder in sys.argv[1:]:
    registry.store(bundle.load(Path(folder)))
"""
UNTIL_STOPPED = re.compile(r"(?:^|\s)(?:duet serve|redis-server)\b")


@pytest.fixture(scope="module")
def home(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo's models and three of those that come with Duet."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(model_store / "models", home / "models", symlinks=True)
    folders = [str(ROOT / "services" / "reference" / model) for model in REFERENCE]
    environment = clean_environment(BENTOML_HOME=str(home))
    subprocess.run([sys.executable, "-c", STORE, *folders], check=True, env=environment, cwd=ROOT)
    return home


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone has, as far as commands of the pages ask for it."""
    clone = tmp_path_factory.mktemp("clone")
    for file in FILES:
        shutil.copy(ROOT / file, clone / file)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return clone


@pytest.fixture(scope="module")
def url(serve: Serve, home: Path) -> Iterator[str]:
    with serve("allinone", home=home) as server:
        yield server.url


class Terminal:
    """A user's terminal in a fresh clone: it remembers what was started on which port."""

    def __init__(self, url: str, home: Path, clone: Path, folder: Path, stack: ExitStack) -> None:
        self.folder = folder / "duet"
        self.ports = {"3000": url.rpartition(":")[2]}
        self.registry = "REGISTRY"
        self.stack = stack
        shutil.copytree(home, folder / "home", symlinks=True, copy_function=os.link)  # type: ignore[arg-type]
        shutil.copytree(clone, self.folder, copy_function=os.link)  # type: ignore[arg-type]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        data = {"DUET_DATA_DIR": os.environ["DUET_DATA_DIR"]} if "DUET_DATA_DIR" in os.environ else {}
        self.environment = clean_environment(BENTOML_HOME=str(folder / "home"), PATH=path, **data)

    def type(self, command: str) -> str:
        """Run a command, and return what it prints."""
        for program, package in PROGRAMS.items():
            if program in command and not shutil.which(program):
                pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
        if UNTIL_STOPPED.search(command):
            self.start(command)
            return ""
        command = command.replace("duet predict ", "duet predict --url http://localhost:3000 ")
        return self.run(["bash", "-c", f"set -o pipefail; {self.redirected(command)}"])

    def run(self, command: list[str]) -> str:
        run = subprocess.run(
            command, cwd=self.folder, env=self.environment, check=False, capture_output=True, text=True
        )
        assert run.returncode == 0, f"{command}: {run.stdout[-2000:]}{run.stderr[-2000:]}"
        return run.stdout

    def redirected(self, text: str) -> str:
        """With the ports on which the tests' own servers listen, and their registry."""
        text = text.replace("REGISTRY", self.registry)
        return re.sub(r"localhost:(\d{4})", lambda found: f"localhost:{self.ports.get(found[1], found[1])}", text)

    def start(self, command: str) -> None:
        """Start a server on a free port in place of the one that the command names."""
        named = re.search(r"--port (\d+)", command)
        port = str(free_port())
        command = command.replace(named[0], f"--port {port}") if named else f"{command} --port {port}"
        process = subprocess.Popen(
            ["bash", "-c", self.redirected(command)],
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        self.stack.callback(self.stop, process)
        self.ports[named[1] if named else "3000"] = port
        end = time.monotonic() + PATIENCE
        while not (listens(port) if "redis-server" in command else is_ready(port)):
            assert process.poll() is None, command
            assert time.monotonic() < end, command
            time.sleep(0.05)

    @staticmethod
    def stop(process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE)


def listens(port: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return True
    return False


def is_ready(port: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).is_success
    return False


def outline(answer: Any) -> Any:
    """The names and types of an answer: numbers, and how many of something there are, differ from model to model."""
    if isinstance(answer, dict):
        return {name: outline(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return sorted({json.dumps(outline(value)) for value in answer})
    return type(answer).__name__


def check_answer(command: str, documented: str, came: str, folder: Path) -> None:
    """What a command printed and wrote is what the page shows, in outline."""
    if documented.startswith("{"):
        assert outline(json.loads(came)) == outline(json.loads(documented.replace("\n", " "))), command
    else:
        assert PROBLEM not in came, command
    if file := re.search(r" -o (\S+)", command):
        written = (folder / file[1]).read_bytes()
        assert written, command
        assert PROBLEM.encode() not in written, command


def follow(page: Path, terminal: Terminal, *, also: Collection[str] = ()) -> int:
    """Do what a page says from top to bottom; returns how many commands and scripts that were."""
    done = 0
    for fence in fences(page.read_text()):
        if fence.needs not in {"", *also}:
            continue
        if fence.language == "python":
            terminal.run([sys.executable, "-W", "error:::__main__", "-c", terminal.redirected(fence.body)])
            done += 1
        elif fence.language == "console":
            parts = re.split(r"^\$ (.*)\n", fence.body, flags=re.M)[1:]
            for command, documented in zip(parts[::2], parts[1::2], strict=True):
                check_answer(command, documented, terminal.type(command), terminal.folder)
                done += 1
    return done


def with_blocks(*needs: str) -> list[Path]:
    """The pages with a block that is to be run and needs one of `needs`."""
    return [
        page
        for page in GUIDES
        if any(fence.needs in needs and fence.language in ("console", "python") for fence in fences(page.read_text()))
    ]


@pytest.fixture
def terminal(url: str, home: Path, clone: Path, tmp_path: Path) -> Iterator[Terminal]:
    with ExitStack() as stack:
        yield Terminal(url, home, clone, tmp_path, stack)


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_every_block_is_of_a_known_kind(page: Path) -> None:
    """Nothing that looks like a command hides from the tests below."""
    text = page.read_text()
    assert {fence.needs for fence in fences(text)} <= NEEDS
    assert {fence.language for fence in fences(text)} <= {"console", "python", "yaml", "{toctree}"}
    for fence in fences(text):
        assert fence.language != "console" or fence.body.startswith("$ ")
        assert fence.needs != "cluster" or any(command.startswith(CLUSTER) for command in commands(fence))
    assert [line for line in indented(text) if not line.startswith(("make ", ". .venv/bin/activate"))] == []


@pytest.mark.parametrize("page", with_blocks(""), ids=name)
def test_commands_run(page: Path, terminal: Terminal) -> None:
    assert follow(page, terminal) > 0


@pytest.mark.parametrize("page", with_blocks("registry"), ids=name)
def test_commands_that_need_a_registry_run(page: Path, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with start_registry(tmp_path / "registry") as terminal.registry:
        assert follow(page, terminal, also={"registry"}) > 0


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", with_blocks("minutes"), ids=name)
def test_commands_that_take_minutes_run(page: Path, terminal: Terminal) -> None:
    tutorial = DOCS / "tutorials" / "own-images.md"
    if page != tutorial and "folder:photos" in page.read_text():  # the tutorial has a script that makes the folder
        script = next(fence for fence in fences(tutorial.read_text()) if fence.language == "python")
        terminal.run([sys.executable, "-c", script.body])
    assert follow(page, terminal, also={"minutes"}) > 0


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("page", with_blocks("mnist"), ids=name)
def test_commands_that_need_mnist_run(page: Path, terminal: Terminal) -> None:
    from training.data import load  # noqa: PLC0415  # it imports torch

    try:
        load("mnist")
    except (OSError, ValueError) as error:
        pytest.skip(f"MNIST is not here: {error}")
    assert follow(page, terminal, also={"mnist", "minutes"}) > 0
