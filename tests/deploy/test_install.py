"""What deploy/install.py says where it cannot go on, and that an interrupted installation is made anew."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "deploy" / "requirements"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with its environment in a folder of this test."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "deploy" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv/bin/python")
    monkeypatch.setattr(module, "UNFINISHED", tmp_path / ".venv/unfinished")
    return module


def test_an_old_python_is_refused_with_the_remedy(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    with pytest.raises(
        install.InstallError, match=r"Python 3\.10 is too old; Duet needs 3\.11 or newer\. Name another"
    ):
        install.check_machine("serve")


def test_a_full_disk_is_refused_with_what_is_needed(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**10, 9 * 10**9, 10**9)
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(install.InstallError, match=r"2 GB of disk are needed in .*, and 1\.0 GB are free; make room"):
        install.check_machine("train")


def test_a_python_without_venv_is_told_which_package_it_lacks(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "works", lambda _: False)
    with pytest.raises(install.InstallError, match="sudo apt-get install python3-venv"):
        install.make_environment()


def test_without_uv_pip_installs(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(title: str, command: list[object], environment: dict[str, str]) -> None:
        if title == "Installing uv":
            raise install.InstallError("no matching distribution")

    monkeypatch.setattr(install, "step", step)
    assert install.choose_installer({}) == install.PIP
    assert "uv cannot be installed here; pip takes its place" in capsys.readouterr().out


def test_a_step_that_fails_shows_what_its_program_said(install: ModuleType) -> None:
    with pytest.raises(install.InstallError, match=r"(?s)no such package.*Installing it failed; it ran: .*python"):
        install.step("Installing it", [sys.executable, "-c", "import sys; print('no such package'); sys.exit(1)"])


def test_uv_looks_where_pip_is_told_to_look(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\nfind-links = /wheels /more\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    found = install.uv_settings(sys.executable)
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert found["UV_FIND_LINKS"].endswith("/wheels,/more")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    again = install.uv_settings(sys.executable)
    assert again["UV_DEFAULT_INDEX"] == "https://own.example/simple", "uv's own settings come first"


def test_ctrl_c_ends_with_a_sentence_and_the_next_run_starts_anew(install: ModuleType, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "deploy").mkdir(parents=True)
    (project / "deploy" / "install.py").write_text((ROOT / "deploy" / "install.py").read_text())
    process = subprocess.Popen(
        [sys.executable, "deploy/install.py", "serve"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (project / ".venv" / "bin").exists():  # the environment is being made
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip() == "Stopped. Run the same command again; it starts anew where that is needed."
    assert not list((project / ".venv").glob("*.installed"))
    install.PYTHON, install.UNFINISHED = project / ".venv/bin/python", project / ".venv/unfinished"
    assert install.UNFINISHED.exists() or not install.works([install.PYTHON, "-m", "pip", "--version"])


def test_a_wrong_set_is_named() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "deploy/install.py", "all"], check=False, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.startswith("Give what to install, one of serve, train, dev")
