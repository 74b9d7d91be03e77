"""The examples of every page of help: the application takes each, and each is run."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from typer.main import get_command
from typer.testing import CliRunner

from tests.conftest import ROOT, RedisServer, Server, clean_environment, free_port, wait_until_answers
from tests.registries import key_pair, start_registry
from training.cli import app


def commands(command: Any, path: str = "duet") -> Iterator[tuple[str, Any]]:
    """It and every command below it, by the full name."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def lines(command: Any) -> list[str]:
    """The examples at the end of a command's help."""
    title, *examples = (command.epilog or "").splitlines()
    assert title == "Examples:"
    return [line.strip() for line in examples]


def split(line: str) -> tuple[dict[str, str], list[str]]:
    """An example's variables of the environment, and its arguments."""
    words = shlex.split(line)
    program = words.index("duet")
    return dict(word.split("=", 1) for word in words[:program]), words[program + 1 :]


EVERY = list(commands(get_command(app)))
EXAMPLES = {path: lines(command) for path, command in EVERY if not hasattr(command, "commands")}
OF_GROUPS = {path: lines(command) for path, command in EVERY if hasattr(command, "commands")}
MINUTES = {"duet train", "duet cross-validate", "duet learning-curve", "duet trials"}
TO_A_REGISTRY = ("duet models push", "duet models pull")
OF_THE_DEMO = "runs/digits-demo-0/cnn/bundles/digits-cnn"
# What must be there before an example can be run.
BEFORE = {
    "duet train": ["duet generate --model digits-gan --count 200 --out photos"],
    "duet models import": ["duet models export digits-cnn digits-cnn.tar.gz"],
}


def test_every_command_has_two_examples_of_itself() -> None:
    assert len(EXAMPLES) == 21
    for path, examples in EXAMPLES.items():
        assert len(set(examples)) == 2, path
        for line in examples:
            assert f"{line} ".startswith(f"{path} ") or re.match(rf"([A-Z_]+=\S+ )+{path}( |$)", line), line
            assert len(line) <= 90, f"{line}: does not fit a page of help"


@pytest.mark.parametrize("path", OF_GROUPS)
def test_the_examples_of_a_group_are_of_its_commands(path: str) -> None:
    below = [line for leaf, examples in EXAMPLES.items() if leaf.startswith(f"{path} ") for line in examples]
    assert set(OF_GROUPS[path]) <= set(below)


@pytest.mark.parametrize("path", EXAMPLES)
def test_help_ends_with_the_examples(path: str) -> None:
    shown = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "120"}).stdout
    end = [line.strip() for line in shown.strip().splitlines()[-2:]]
    assert end == EXAMPLES[path]


@pytest.mark.parametrize(("path", "line"), [(path, line) for path, examples in EXAMPLES.items() for line in examples])
def test_the_application_takes_it(path: str, line: str, folder: Path) -> None:
    calls: list[str] = []
    command = get_command(app)
    for name, below in commands(command):
        if name in EXAMPLES:
            below.callback = lambda name=name, **options: calls.append(name)
    command.main(args=split(line)[1], standalone_mode=False)
    assert calls == [path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an example is typed: pictures as in the repository, and what paths of examples lead to."""
    shutil.copytree(ROOT / "docs" / "pictures", tmp_path / "docs" / "pictures")
    (tmp_path / "digits-cnn.tar.gz").touch()
    (tmp_path / OF_THE_DEMO).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(folder: Path, model_store: Path) -> Iterator[None]:
    """A copy of the demo's store, and a bundle as the demo's training left it."""
    shutil.copytree(model_store / "models", folder / "home" / "models")
    for place in (OF_THE_DEMO, "bundles/digits-cnn"):
        shutil.copytree(model_store / OF_THE_DEMO, folder / place, dirs_exist_ok=True)
    key_pair(folder, "key")[0].rename(folder / "private.pem")
    BentoMLContainer.model_store.set(ModelStore(folder / "home" / "models"))
    yield
    BentoMLContainer.model_store.reset()


def type_in(line: str, *more: str, **variables: str) -> str:
    """Run an example in this process, with `more` arguments; returns what it printed."""
    variables, arguments = split(line)[0] | variables, split(line)[1]
    result = CliRunner().invoke(app, [*arguments, *more], input="y\n", env=variables)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


IN_PLACE = [path for path in EXAMPLES if path.startswith(("duet models", "duet generate"))]


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in IN_PLACE if path not in TO_A_REGISTRY])
def test_it_runs(path: str, store: None) -> None:
    for line in [*BEFORE.get(path, []), *EXAMPLES[path]]:
        type_in(line)


@pytest.mark.slow
@pytest.mark.server
def test_it_goes_to_a_registry_and_back(folder: Path, store: None) -> None:
    (folder / "registry").mkdir()
    with start_registry(folder / "registry") as address:
        for path in TO_A_REGISTRY:
            for line in EXAMPLES[path]:
                said = type_in(line.replace("registry.example", address))
        assert said.splitlines()[-1].startswith("bundles/digits-gan/")


@pytest.mark.slow
def test_a_report_is_written(folder: Path, store: None) -> None:
    for line in EXAMPLES["duet evaluate"]:
        assert "report: " in type_in(line)
    assert (folder / "runs" / "evaluation" / "report.md").exists()


@pytest.mark.slow
def test_the_int8_version_is_made_and_compared(store: None) -> None:
    for line in EXAMPLES["duet quantize"]:
        assert "digits-cnn-int8" in type_in(line)
    type_in("duet models import runs/int8/digits-cnn-int8")  # a busy machine may find that it is not faster
    for line in EXAMPLES["duet compare"]:
        assert "digits-cnn-int8" in type_in(line)


@pytest.mark.server
@pytest.mark.parametrize("path", ["duet cache stats", "duet cache flush"])
def test_it_asks_redis(path: str, store: None, redis_server: RedisServer) -> None:
    for line in EXAMPLES[path]:
        type_in(line, DUET_REDIS_URL=redis_server.url)


@pytest.mark.slow
@pytest.mark.server
def test_it_serves_and_answers(folder: Path, store: None) -> None:
    everything, classification = EXAMPLES["duet serve"]
    table, scores = EXAMPLES["duet predict"]
    with served(everything, folder) as url:
        assert "docs/pictures/digit.png" in type_in(table, "--url", url)
        answers = [json.loads(answer) for answer in type_in(scores, "--url", url).splitlines()]
        assert {answer["file"] for answer in answers} == {str(file) for file in Path("docs/pictures").glob("*.png")}
    with served(classification, folder) as url:
        assert "docs/pictures/digit.png" in type_in(table, "--url", url)


@contextlib.contextmanager
def served(line: str, folder: Path) -> Iterator[str]:
    """Start the server of an example on a free port; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "training", *split(line)[1], "--port", str(port)]
    environment = clean_environment(BENTOML_HOME=str(folder / "home"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, folder / "log")
    try:
        wait_until_answers(server, ready=True)
        yield server.url
    finally:
        server.stop()


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("path", "line"), [(path, line) for path in sorted(MINUTES) for line in EXAMPLES[path]])
def test_it_runs_for_minutes(path: str, line: str, store: None) -> None:
    for each in [*BEFORE.get(path, []), line]:
        type_in(each)
