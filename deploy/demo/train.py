"""Train the four networks of a recipe, as many side by side as there are cores, and show how far each is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

HEARTBEAT = 10  # seconds between lines where there is no terminal


class TrainingFailed(RuntimeError):
    """A training ended with an error; the message is the end of its log."""


@dataclass
class Training:
    """One `duet train --network NAME` in a process of its own."""

    name: str
    title: str
    options: list[str]
    needs: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    bar: TaskID = field(default=TaskID(0))

    @property
    def done(self) -> bool:
        return self.process is not None and self.process.poll() == 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def trainings() -> list[Training]:
    """In the order in which they start. The classifier judges the GAN, and is part of the scorer, as the VAE is."""
    judge = ["--judge", "digits-cnn"]
    parts = ["--classifier", "digits-cnn", "--generator", "digits-vae"]
    return [
        Training("cnn", "classifier", []),
        Training("vae", "VAE", []),
        Training("gan", "GAN", judge, needs=("cnn",)),
        Training("scorer", "anomaly scorer", parts, needs=("cnn", "vae")),
    ]


def train_all(home: Path, environment: dict[str, str], console: Console) -> None:
    """Train the demo recipe on the digits into the store of `environment`; runs and logs lie below `home`.

    What an interrupted call has trained is used again.

    Raises:
        TrainingFailed: one of the trainings ended with an error.
        KeyboardInterrupt: Ctrl-C; each training has written its checkpoint.
    """
    plan = trainings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(2, cores)
    environment = environment | {"OMP_NUM_THREADS": str(max(1, cores // at_once))}
    shown = Progress(
        *(TextColumn("  {task.description:15}"), BarColumn(), TextColumn("{task.fields[state]:20}")),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    said = time.monotonic()
    try:
        with shown:
            for training in plan:
                training.bar = shown.add_task(training.title, start=False, total=1, state="waits")
            while not all(training.done for training in plan):
                start_what_can(plan, home, environment, at_once, shown)
                time.sleep(0.2)
                for training in plan:
                    show(training, home, shown)
                if not console.is_terminal and time.monotonic() - said >= HEARTBEAT:
                    said = time.monotonic()
                    console.print("  " + ", ".join(f"{each.title} {state(each, home)}" for each in plan))
    finally:
        for training in plan:
            if training.running and training.process:
                training.process.send_signal(signal.SIGINT)  # it writes its checkpoint, as after Ctrl-C
        for training in plan:
            if training.process:
                training.process.wait()


def start_what_can(
    plan: list[Training], home: Path, environment: dict[str, str], at_once: int, shown: Progress
) -> None:
    """Start the next trainings whose parts are there, and stop at the first that failed."""
    done = {training.name for training in plan if training.done}
    for training in plan:
        if training.process and training.process.poll() not in (None, 0):
            log = (home / f"{training.name}.log").read_text()
            raise TrainingFailed(
                f"{log[-2000:]}\nThe training of the {training.title} failed; the lines above say why."
            )
        free = sum(each.running for each in plan) < at_once
        if training.process is None and free and done.issuperset(training.needs):
            command = [sys.executable, "-m", "training", "train", "--dataset", "digits", "--recipe", "demo", "--resume"]
            command += ["--network", training.name, *training.options, "--out", str(home / "runs")]
            with (home / f"{training.name}.log").open("wb") as log:
                # In a session of its own it gets one SIGINT, from here: a second one would end it without a checkpoint.
                training.process = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            shown.start_task(training.bar)


def show(training: Training, home: Path, shown: Progress) -> None:
    shown.update(training.bar, completed=share(training, home), state=state(training, home))
    if training.done:
        shown.stop_task(training.bar)


def state(training: Training, home: Path) -> str:
    if training.process is None:
        return "waits"
    if training.done:
        return "done"
    trained = share(training, home)
    return "is exported, tested" if trained >= 1 else f"{trained:.0%}"


def share(training: Training, home: Path) -> float:
    """The share of the training that is done, from its log of epochs, 0..1."""
    directory = home / "runs" / "digits-demo-0" / training.name
    try:
        config = json.loads((directory / "config.json").read_text())["config"]["network"]
        last = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return 0.0  # it has not begun, or a line is half written
    if "epochs" in config:
        return float((last["epoch"] + 1) / config["epochs"])
    return min(1.0, float(last["step"] / config["defects"]["steps"]))
