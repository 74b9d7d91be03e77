"""`make demo ONCE=1` after its training: the answers are printed, and nothing is left running."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.server]


def test_the_demo_shows_an_answer_of_each_kind_and_ends(model_store: Path, tmp_path: Path) -> None:
    home = tmp_path / ".duet/demo"
    shutil.copytree(model_store / "models", home / "models")
    (home / "trained").touch()

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_"))}
    run = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=tmp_path,
        env={name: value for name, value in kept.items() if name != "PORT"} | {"ONCE": "1", "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "used again" in run.stdout
    assert "normal" in run.stdout
    assert "anomalous" in run.stdout
    with Image.open(home / "generated.png") as picture:
        assert picture.format == "PNG"
    assert "cleanup finalized" in (home / "server.log").read_text()
