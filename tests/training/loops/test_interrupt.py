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

from tests.conftest import PATIENCE
from training.data import load
from training.loops.launch import launch
from training.loops.vae import VAERecipe
from training.networks.vae import VAEConfig
from training.recipes import RECIPES
from training.train import fit

VAE = VAERecipe(VAEConfig(latent_size=4), epochs=12, batch_size=32, patience=None, picture_every=100)
SCRIPT = """
import sys
from pathlib import Path

import torch

from tests.training.loops.test_interrupt import VAE
from training.data import load
from training.recipes import RECIPES
from training.train import fit, launch

torch.set_num_threads(1)
recipe = RECIPES["demo"].changed(vae=VAE)
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
    until = time.monotonic() + PATIENCE
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < until, "no epoch was finished"
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_at_the_same_weights(tmp_path: Path) -> None:
    interrupted = tmp_path / "interrupted"
    process = start(interrupted)
    wait_for_epochs(interrupted, 3)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "run the same command with --resume" in messages
    assert "Traceback" not in messages
    assert not (interrupted / "weights.pt").exists()

    process = start(interrupted, "--resume")
    _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, messages

    torch.set_num_threads(1)
    recipe = RECIPES["demo"].changed(vae=VAE)
    module = fit(launch("cpu", 1), "vae", load("digits"), recipe, parent=tmp_path / "whole", seed=0, resume=False)
    resumed, whole = torch.load(interrupted / "weights.pt", weights_only=True), module.state_dict()
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
