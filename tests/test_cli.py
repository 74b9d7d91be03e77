"""`duet` as a whole: its version, its pages of help, and mistakes, which end with one sentence."""

from __future__ import annotations

import errno
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from typer.main import get_command
from typer.testing import CliRunner, Result

from services import __version__
from services.commands import version
from services.settings import Settings
from tests.conftest import clean_environment, free_port
from training.cli import app

PANELS = {
    "Serve and ask": ["serve", "predict", "generate"],
    "Train and judge": ["train", "evaluate", "compare", "quantize", "cross-validate", "learning-curve", "trials"],
    "Store and cache": ["models", "cache"],
}


def duet(*arguments: str | Path, **environment: str) -> Result:
    """Run it with a terminal so wide that no line is broken; an exception other than its exit fails the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300", **environment})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def sentence(result: Result) -> str:
    """The one line of stderr of a command that was refused."""
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    start, _, rest = line.partition("error: ")
    assert not start
    return rest


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that `duet serve` would become; a test that gets there fails."""

    def started(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr("services.commands.serve.become_server", started)


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[None]:
    """BENTOML_HOME is read at import, so the container is told."""
    (tmp_path / "models").mkdir()
    BentoMLContainer.model_store.set(ModelStore(tmp_path / "models"))
    yield
    BentoMLContainer.model_store.reset()


def test_version_has_a_line_for_everything_that_a_bug_report_needs() -> None:
    result = duet("--version")
    assert result.exit_code == 0
    said = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(said) == ["duet", "python", *version.LIBRARIES, "platform"]
    assert said["duet"] == __version__
    assert said["python"].startswith(platform.python_version())
    assert said["numpy"] == numpy.__version__
    assert said["platform"] == platform.platform()


def test_version_of_a_serving_install_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name in ("torch", "onnx", "lightning-fabric"):
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(version, "version", installed)
    lines = duet("--version").stdout.splitlines()
    assert sorted(line.split()[0] for line in lines if line.endswith("not installed")) == [
        "lightning-fabric",
        "onnx",
        "torch",
    ]


def test_start_up_imports_nothing_heavy() -> None:
    heavy = {"torch", "bentoml", "onnxruntime", "numpy", "redis", "httpx", "PIL", "starlette", "sklearn"}
    code = f"import sys, training.cli; print(sorted({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_help_groups_the_commands_by_who_needs_them() -> None:
    text = duet("--help").stdout
    places = [text.index(panel) for panel in PANELS]
    assert places == sorted(places)
    for (panel, names), start, end in zip(PANELS.items(), places, [*places[1:], len(text)], strict=True):
        shown = [line.split()[1] for line in text[start:end].splitlines() if line.startswith("│ ")]
        assert shown == names, panel
    assert sorted(name for names in PANELS.values() for name in names) == sorted(get_command(app).commands)  # type: ignore[attr-defined]


BAD_SETTINGS = [
    ("DUET_BODY_BYTES", "16MB", "'16MB' is not a whole number of at least 1; the default is 16777216"),
    (
        "DUET_REDIS_ADMISSION",
        "sometimes",
        "'sometimes' is not one of auto, always, never; the default is auto",
    ),
    ("DUET_THREADS", "-1", "'-1' is not a whole number of at least 0; the default is 0"),
    ("DUET_FAST_LANE", "perhaps", "'perhaps' is not true or false; the default is True"),
    ("DUET_DRIFT_TOLERATED", "0.6", "'0.6' is not a number of at least 0 and at most 0.5; the default is 0.02"),
    ("DUET_DRIFT_TOLERATED", "nan", "'nan' is not a number of at least 0 and at most 0.5; the default is 0.02"),
    ("DUET_HEAD_SECONDS", "0", "'0' is not a number above 0; the default is 10.0"),
    ("DUET_CLIENT_HEADER", "Cookie", "'Cookie' must not be a header that holds a secret"),
    ("DUET_DRAIN_SECONDS", "nan", "'nan' is not a number of at least 0; the default is 5.0"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD_SETTINGS, ids=[name for name, _, _ in BAD_SETTINGS])
@pytest.mark.parametrize("command", ["serve", "cache stats", "cache flush --all"])
def test_a_bad_setting_is_one_sentence(
    command: str, name: str, value: str, reason: str, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert sentence(duet(*command.split())) == f"{name}: {reason}"


def test_every_setting_can_be_explained(no_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, with a value that none of them takes; names of models and files may be any."""
    free = ("models", "bundles", "bundle_name", "trusted_keys", "default_models")
    names = [f"DUET_{name.upper()}" for name in Settings.model_fields if name not in free]
    for name in names:
        monkeypatch.setenv(name, "?")
    said = sentence(duet("serve"))
    assert [part.partition(":")[0] for part in said.split(". ")] == names


def test_keys_that_are_not_there_are_one_sentence(
    no_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUET_TRUSTED_KEYS", f"{tmp_path}/missing.pem")
    said = f"DUET_TRUSTED_KEYS: {tmp_path}/missing.pem: No such file or directory; name a file that can be read"
    assert sentence(duet("serve")) == said


def test_a_redis_url_is_refused_without_its_password(no_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", "http://user:secret@host")
    for command in (["serve"], ["cache", "stats"]):
        said = sentence(duet(*command))
        assert said.startswith("DUET_REDIS_URL: ")
        assert "redis+cluster://" in said
        assert "secret" not in said


@pytest.mark.server
def test_a_server_without_duet_serve_says_it_in_one_line_too(tmp_path: Path) -> None:
    """As in a container, where BentoML's own command starts the service."""
    environment = clean_environment(BENTOML_HOME=str(tmp_path), DUET_THREADS="-1")
    command = [sys.executable, "-m", "bentoml", "serve", "services.anomaly:Anomaly", "--port", str(free_port())]
    run = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        "error: DUET_THREADS: '-1' is not a whole number of at least 0; the default is 0"
    )
    assert "Traceback" not in run.stderr


def test_a_port_in_use_is_named_with_the_remedy(no_server: None) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = sentence(duet("serve", "--port", str(port)))
    assert said.startswith(f"--port {port}: another program listens there")
    assert "another port" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a b", "x" * 300])
def test_an_address_of_another_machine_is_named(host: str, no_server: None) -> None:
    assert sentence(duet("serve", "--host", host)).startswith(f"--host {host}: ")


def test_a_store_that_is_a_file_is_named(tmp_path: Path) -> None:
    """BENTOML_HOME is read at import, so this needs a process of its own."""
    (tmp_path / "file").touch()
    environment = clean_environment(BENTOML_HOME=str(tmp_path / "file"))
    command = [sys.executable, "-m", "training", "models", "list"]
    run = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    [line] = run.stderr.splitlines()
    assert f"{tmp_path / 'file'} is not a directory" in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "a.png"),
            "a.png: Permission denied; change its permissions",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"a.png"), "a.png: Is a directory; choose another path"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
    ids=["permission", "directory", "disk"],
)
def test_errors_of_the_system_are_sentences(error: OSError, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Any]:
        raise error

    monkeypatch.setattr("services.inference.registry.entries", fail)
    assert sentence(duet("models", "list")).startswith(said)


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("no file"), KeyError("k")], ids=repr)
def test_a_defect_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Any]:
        raise error

    monkeypatch.setattr("services.inference.registry.entries", fail)
    with pytest.raises(type(error)):
        duet("models", "list")


def test_a_message_of_several_lines_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.tar.gz").write_text("no archive")
    said = sentence(duet("models", "import", tmp_path / "junk.tar.gz"))
    assert said.startswith(f"{tmp_path / 'junk.tar.gz'}: ")
    assert said.endswith("export it again")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--dataset", "nobody"],
            "--dataset nobody: data set 'nobody' is unknown; give digits, mnist, fashion-mnist or folder:PATH",
        ),
        (["train", "--dataset", "folder:nothing"], "--dataset folder:nothing: no such folder"),
        (["train", "--accelerator", "cuda"], "--accelerator cuda: PyTorch finds no CUDA device"),
        (["train", "--judge", "nobody"], "model 'nobody' is not in the store"),
        (["evaluate", "nobody"], "model 'nobody' is not in the store"),
        (["evaluate", "nobody:latest"], "model 'nobody:latest' is not in the store"),
        (["compare", "one", "other"], "model 'one' is not in the store"),
        (["quantize", "nobody"], "model 'nobody' is not in the store"),
        (["learning-curve", "--from", "nobody"], "model 'nobody' is not in the store"),
        (["generate", "--model", "nobody", "--out", "drawn"], "model 'nobody' is not in the store"),
        (["models", "export", "nobody", "nobody.tar.gz"], "model 'nobody' is not in the store"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_named(
    arguments: list[str], said: str, tmp_path: Path, empty_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert sentence(duet(*arguments)).startswith(said)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--recipe", "nobody"],
        ["train", "--network", "nobody"],
        ["train", "--accelerator", "quantum"],
        ["train", "--seed", str(2**32)],
        ["train", "--devices", "0"],
        ["cross-validate", "--folds", "1"],
        ["cross-validate", "--recipe", "nobody"],
        ["trials", "three-class"],
        ["serve", "translation"],
        ["predict", "nothing.png"],
        ["generate", "--model", "m", "--out", "o", "--count", "0"],
        ["models", "import", "nothing.tar.gz"],
        ["models", "burn"],
    ],
    ids=" ".join,
)
def test_a_value_that_an_option_does_not_take_is_named(arguments: list[str]) -> None:
    result = duet(*arguments)
    assert result.exit_code == 2
    assert arguments[-1] in result.stderr or arguments[-2] in result.stderr


def test_a_folder_in_the_place_of_a_file_and_back_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    said = sentence(duet("learning-curve", "--out", "file"))
    assert said.startswith("file")
    assert "choose another path" in said
