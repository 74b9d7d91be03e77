"""The directory of one network's training run: config.json, notes.json, metrics.jsonl, checkpoint.pt, pictures/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.loops.header import difference

CONFIG = "config.json"
NOTES = "notes.json"
CHECKPOINT = "checkpoint.pt"


class RunError(ValueError):
    """A run directory cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Run:
    directory: Path
    network: str
    config: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        return self.directory / CHECKPOINT

    @property
    def metrics(self) -> Path:
        return self.directory / "metrics.jsonl"

    @property
    def pictures(self) -> Path:
        return self.directory / "pictures"

    def note(self, **facts: Any) -> None:
        """Add measurements of the run to notes.json: arithmetic, CPU minutes."""
        _replace(self.directory / NOTES, json.dumps(self.notes() | facts, indent=2) + "\n")

    def notes(self) -> dict[str, Any]:
        path = self.directory / NOTES
        facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return facts

    def log(self, record: Mapping[str, Any]) -> None:
        with self.metrics.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The metrics log, one record an epoch, oldest first."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def forget_from(self, epoch: int) -> None:
        """Drop the records of `epoch` and later: a crash may happen between a record and its checkpoint."""
        kept = [record for record in self.records() if record["epoch"] < epoch]
        _replace(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint atomically: a reader gets the old one or the new one.

        Raises:
            RunError: it cannot be written, for instance because the disk is full; the old one stays.
        """
        temporary = self.checkpoint.with_suffix(".tmp")
        try:
            torch.save({**state, "config": self.config}, temporary)
            os.replace(temporary, self.checkpoint)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises the second where the disk is full
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"{self.checkpoint}: not written ({error}); free some disk space, and go on with --resume"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, on the CPU, or None where there is none.

        Raises:
            RunError: the file is damaged, or belongs to another config.
        """
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises the errors of the zip reader and the unpickler
            raise RunError(f"{self.checkpoint}: not readable ({error}); delete it to train from the start") from None
        _require_same(self.checkpoint, state["config"], self.config)
        return state


def open_run(parent: Path, network: str, config: Mapping[str, Any], *, resume: bool) -> Run:
    """Create the directory `parent/network` for a run of `config`, or open the existing run.

    Without `resume` it must not have a checkpoint: the hours in it are not deleted by a command that lacks an option.
    The log and the notes of a run that has none yet are removed.

    Args:
        parent: the directory of the data set, recipe and seed.
        network: cnn, vae or gan.
        config: everything that decides the weights, as JSON values.
        resume: continue from the checkpoint, if there is one.

    Raises:
        RunError: the directory holds a run of another config, or a run's checkpoint and `resume` is not given.
    """
    directory = parent / network
    canonical: dict[str, Any] = json.loads(json.dumps(config))
    run = Run(directory, network, canonical)
    path = directory / CONFIG
    if path.exists():
        _require_same(path, json.loads(path.read_text())["config"], canonical)
    if not resume:
        require_no_checkpoint(directory)
    run.pictures.mkdir(parents=True, exist_ok=True)
    if not resume:
        run.metrics.unlink(missing_ok=True)
        (directory / NOTES).unlink(missing_ok=True)
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "lightning-fabric", "numpy")
    }
    _replace(path, json.dumps({"config": canonical, "versions": versions}, indent=2) + "\n")
    return run


def require_no_checkpoint(directory: Path) -> None:
    """Refuse to start again in a directory that has the checkpoint of a run, its own or one below it.

    Raises:
        RunError: naming the checkpoint.
    """
    for checkpoint in sorted(directory.rglob(CHECKPOINT)):
        raise RunError(
            f"{checkpoint}: an earlier run left this checkpoint; give --resume to continue it (a finished one is only "
            f"stored again), another --out to keep it, or delete {directory} to train from the start"
        )


def _replace(path: Path, text: str) -> None:
    """Write a file so that an interruption leaves the old one or the new one, never a part."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if (other := difference(found, wanted)) is not None:
        raise RunError(
            f"{path}: this directory holds a run with {other.field} {other.found!r}, but the command gives "
            f"{other.wanted!r}; choose another output directory, or delete {path.parent}"
        )


def save_grid(path: Path, pixels: Tensor, *, columns: int) -> None:
    """Write images, pixels in 0..1 [N, C, H, W], row by row as one PNG; the last row is filled with black."""
    n, channels, height, width = pixels.shape
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, channels, height, width), np.uint8)
    tiles[:n] = (pixels * 255).round().byte().cpu().numpy()
    grid = tiles.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    Image.fromarray(grid.squeeze(2) if channels == 1 else grid).save(path)
