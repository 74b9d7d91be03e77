"""Two real processes started by torchrun, gradients averaged over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import PATIENCE
from training.data import load
from training.loops.classifier import CNNRecipe
from training.loops.gan import GANRecipe
from training.loops.launch import launch
from training.loops.vae import VAERecipe
from training.networks.cnn import CNNConfig
from training.networks.gan import GANConfig
from training.networks.vae import VAEConfig
from training.recipes import Recipe
from training.train import fit

SCRIPT = """
import sys
from pathlib import Path

from tests.training.loops.test_distributed import train

train(Path(sys.argv[1]), ("cnn", "vae", "gan"))
"""


def train(out: Path, networks: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Train `networks` on some digits, in the processes that there are; returns the CNN's weights and saves them."""
    torch.set_num_threads(1)
    fabric = launch("cpu", 1)
    digits = load("digits")
    digits = replace(digits, train=digits.train.take(np.arange(128)), validation=digits.validation.take(np.arange(32)))
    recipe = Recipe(
        "tiny",
        {
            "cnn": CNNRecipe(CNNConfig(channels=(4, 8), hidden=16), epochs=2, batch_size=32),
            "vae": VAERecipe(VAEConfig(hidden=32), epochs=2, batch_size=32, picture_every=2),
            "gan": GANRecipe(GANConfig(8, 8, 8, 8), epochs=2, batch_size=32),
        },
    )
    modules = [fit(fabric, network, digits, recipe, parent=out, seed=0, resume=False) for network in networks]
    weights = modules[0].state_dict()
    torch.save(weights, out / f"{fabric.world_size}-{fabric.global_rank}.pt")
    return weights


def torchrun(out: Path, processes: int) -> None:
    out.mkdir(exist_ok=True)
    script = out / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(out)], check=True, env=environment, timeout=PATIENCE, cwd=out)


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    torchrun(tmp_path / "two", 2)
    first, second = (torch.load(tmp_path / "two" / f"2-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for network in ("cnn", "vae", "gan"):
        lines = (tmp_path / "two" / network / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    # Half a batch on each side is the same step as the whole batch on one.
    (tmp_path / "one").mkdir()
    alone = train(tmp_path / "one", ("cnn",))
    assert all(torch.allclose(first[name], alone[name], atol=1e-4) for name in first)
