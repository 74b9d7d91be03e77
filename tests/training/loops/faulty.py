"""The `duet` command with a brief recipe and a fault on one process: `torchrun -m tests.training.loops.faulty FAULT`.

Faults: `none`; `killed`, process 1 by SIGKILL in the third epoch; `disk`, no space for the checkpoint of the third
epoch, which process 0 writes; `gate`, an accuracy that no network reaches.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.cli import main
from training.loops.epochs import Epochs
from training.loops.run import Run
from training.networks.residual_cnn import ResidualCNNConfig
from training.publishing import gates
from training.recipes import RECIPES, Recipe

MARK = "fault"  # a file that is written at the fault


def brief(demo: Recipe) -> Recipe:
    cnn = replace(demo.networks["cnn"], network=ResidualCNNConfig(channels=8), epochs=4)
    return Recipe("demo", {"cnn": cnn})


def inject(fault: str) -> None:
    record, save = Epochs.record, Run.save

    def dying(self: Epochs, **losses: Tensor) -> None:
        if (self.epoch, self.step, self.fabric.global_rank) == (2, 3, 1):
            Path(MARK).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, **losses)

    def full(self: Run, state: Mapping[str, Any]) -> None:
        if state["epoch"] == 3:
            Path(MARK).touch()
            self.checkpoint.with_suffix(".tmp").symlink_to("/dev/full")
        save(self, state)

    gates.ACCURACY["digits"] = 1.01 if fault == "gate" else 0.0
    if fault == "killed":
        Epochs.record = dying  # type: ignore[method-assign]
    if fault == "disk":
        Run.save = full  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    inject(sys.argv.pop(1))
    RECIPES["demo"] = brief(RECIPES["demo"])
    main()
