"""A real Ctrl-C to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path

import torch

from training.data import load
from training.loops.vae import VAERecipe
from training.networks.vae import VAEConfig
from training.recipes import RECIPES, Recipe
from training.train import fit, launch

torch.set_num_threads(1)
vae = VAERecipe(VAEConfig(latent_size=4), epochs=12, batch_size=32, patience=None, picture_every=100)
recipe = Recipe("tiny", cnn=RECIPES["demo"].cnn, vae=vae, gan=RECIPES["demo"].gan)
resume = "--resume" in sys.argv
try:
    module = fit(launch("cpu", 1), "vae", load("digits"), recipe, parent=Path("."), seed=0, resume=resume)
except KeyboardInterrupt:
    sys.exit(130)
torch.save(module.state_dict(), "weights.pt")
"""


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(directory: Path, count: int) -> None:
    log = directory / "vae" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < until, "no epoch was finished within two minutes"
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_at_the_same_weights(tmp_path: Path) -> None:
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    process = start(interrupted)
    wait_for_epochs(interrupted, 3)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the same command with --resume" in messages
    assert "Traceback" not in messages
    assert not (interrupted / "weights.pt").exists()

    for directory, arguments in ((interrupted, ("--resume",)), (whole, ())):
        process = start(directory, *arguments)
        _, messages = process.communicate(timeout=250)
        assert process.returncode == 0, messages
    first, second = (torch.load(directory / "weights.pt", weights_only=True) for directory in (interrupted, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
