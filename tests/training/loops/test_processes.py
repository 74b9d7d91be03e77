"""Two real processes under torchrun: one fails, and the other ends with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import PATIENCE, clean_environment
from tests.training.loops.faulty import MARK

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from training.data import Split
from training.loops.batches import Images
from training.loops.epochs import Epochs
from training.loops.processes import ending_together
from training.loops.run import Run

torch.set_num_threads(1)
fabric = Fabric(accelerator="cpu", devices=2)
fabric.launch()
rank = fabric.global_rank
network = nn.BatchNorm2d(1, affine=False)
images = Images(Split(np.zeros((8, 1, 2, 2), np.uint8)), fabric.device)
run = Run(Path(), "norm", {})
how = {"state": {"network": network}, "keep": network, "epochs": 1, "batch_size": 4, "patience": None, "seed": 0}
with Epochs(run, fabric, images, **how) as epochs:
    for _ in epochs:
        for pixels, _ in epochs.batches():
            network(pixels + rank)  # process 0 sees images of 0, process 1 of 1
            epochs.record(loss=torch.tensor(0.0))
        epochs.finish({}, learning_rate=0.1, objective=None)
torch.save(network.state_dict(), f"statistics-{rank}.pt")
try:
    with ending_together(fabric):
        if rank == 1:
            raise OSError(28, "No space left on device")
        fabric.barrier()
except Exception as error:
    Path(f"reason-{rank}").write_text(f"{type(error).__name__}: {error}")
"""


def torchrun(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = clean_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", COLUMNS="500", **variables)
    return subprocess.run(
        command, cwd=directory, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.slow
def test_an_error_on_one_process_ends_the_other_and_statistics_are_those_of_both(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    result = torchrun(tmp_path, "script.py")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "reason-1").read_text() == "OSError: [Errno 28] No space left on device"
    assert (tmp_path / "reason-0").read_text() == (
        "ProcessError: process 1 failed: [Errno 28] No space left on device. This process ends, too; go on with "
        "--resume"
    )
    first, second = (torch.load(tmp_path / f"statistics-{rank}.pt") for rank in (0, 1))
    # Two steps with momentum 0.1 towards 0 on one process and 1 on the other: 0.19 of their mean.
    assert first["running_mean"].item() == pytest.approx(0.19 / 2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["network"]
    assert torch.equal(saved["running_mean"], first["running_mean"])


def trained(directory: Path, fault: str, *more: str) -> subprocess.CompletedProcess[str]:
    directory.mkdir(exist_ok=True)
    command = ["-m", "tests.training.loops.faulty", fault, "train", "--dataset", "digits", "--network", "cnn", *more]
    return torchrun(directory, *command, BENTOML_HOME=str(directory))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    path = directory / "runs" / "digits-demo-0" / "cnn" / "checkpoint.pt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["best"]["weights"]
    return state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    directory = tmp_path_factory.mktemp("undisturbed")
    result = trained(directory, "none")
    assert result.returncode == 0, result.stderr
    return weights(directory)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("killed", ("Signal 9 (SIGKILL)", "another process", "go on with --resume")),
        ("disk", ("checkpoint.pt: not written", "process 0 failed: ", "free some disk space")),
    ],
)
def test_the_others_end_within_a_minute_and_a_resume_gives_the_same_weights(
    fault: str, reasons: tuple[str, ...], tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    result = trained(tmp_path, fault)
    assert time.time() - os.stat(tmp_path / MARK).st_mtime < 60
    assert result.returncode != 0
    assert all(reason in result.stderr for reason in reasons), result.stderr
    resumed = trained(tmp_path, "none", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    again = weights(tmp_path)
    assert all(torch.equal(undisturbed[name], again[name]) for name in undisturbed)


@pytest.mark.nightly
def test_a_missed_gate_ends_both_with_its_figures(tmp_path: Path) -> None:
    result = trained(tmp_path, "gate")
    assert result.returncode != 0
    assert "not stored: digits-cnn: accuracy" in result.stderr
    assert "process 0 failed: not stored: digits-cnn: accuracy" in result.stderr
