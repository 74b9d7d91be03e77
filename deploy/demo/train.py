"""Train the four networks of the demo recipe, two side by side, and show how far each is.

On Linux each training is forked from this process, so that PyTorch is imported once; elsewhere it imports it itself.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

HEARTBEAT = 10  # seconds between lines where there is no terminal
SECONDS_TO_SAVE = 10  # after Ctrl-C: a checkpoint takes less, an export may not stop for longer
METHOD = "fork" if sys.platform == "linux" else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
IMPORTED = ["training.train", "training.recipes", "training.commands.train", "torch._dynamo", "onnxscript"]


class TrainingFailed(RuntimeError):
    """A training ended with an error; the message is the end of its log."""


@dataclass
class Training:
    """One `duet train --network NAME` in a process of its own."""

    name: str
    title: str
    options: list[str]
    needs: tuple[str, ...] = ()
    process: BaseProcess | None = None
    bar: TaskID = field(default=TaskID(0))

    @property
    def done(self) -> bool:
        return self.process is not None and self.process.exitcode == 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.exitcode is None


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


def run(arguments: list[str], log: Path) -> None:
    """`duet` with these arguments, in a process of its own, with the output in `log`."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C of the terminal reaches the parent alone, for a second SIGINT would leave no checkpoint
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    from training.cli import app  # noqa: PLC0415  (each process imports it once)

    app(arguments)


def train_all(home: Path, console: Console) -> None:
    """Train the demo recipe on the digits into the store of this process; runs and logs lie below `home`.

    What an interrupted call has trained is used again.

    Raises:
        TrainingFailed: one of the trainings ended with an error.
        KeyboardInterrupt: Ctrl-C; each training has written its checkpoint.
    """
    plan = trainings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(2, cores)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // at_once))
    if METHOD == "fork":
        console.print("  importing PyTorch")
        for module in IMPORTED:
            importlib.import_module(module)
    shown = Progress(
        *(TextColumn("  {task.description:15}"), BarColumn(), TextColumn("{task.fields[state]:20}")),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,  # by a thread, and threads do not survive a fork
    )
    said = time.monotonic()
    try:
        with shown:
            for training in plan:
                training.bar = shown.add_task(training.title, start=False, total=1, state="waits")
            while not all(training.done for training in plan):
                start_what_can(plan, home, at_once, shown)
                time.sleep(0.2)
                for training in plan:
                    show(training, home, shown)
                shown.refresh()
                if not console.is_terminal and time.monotonic() - said >= HEARTBEAT:
                    said = time.monotonic()
                    console.print("  " + ", ".join(f"{each.title} {state(each, home)}" for each in plan))
    finally:
        for training in plan:
            if training.running and training.process and training.process.pid:
                os.kill(training.process.pid, signal.SIGINT)  # it writes its checkpoint, as after Ctrl-C
        for training in plan:
            if training.process:
                training.process.join(SECONDS_TO_SAVE if training.running else None)
                training.process.terminate()


def start_what_can(plan: list[Training], home: Path, at_once: int, shown: Progress) -> None:
    """Start the next trainings whose parts are there, and stop at the first that failed."""
    done = {training.name for training in plan if training.done}
    for training in plan:
        if training.process and training.process.exitcode not in (None, 0):
            log = (home / f"{training.name}.log").read_text()
            raise TrainingFailed(
                f"{log[-2000:]}\nThe training of the {training.title} failed; the lines above say why."
            )
        free = sum(each.running for each in plan) < at_once
        if training.process is None and free and done.issuperset(training.needs):
            arguments = ["train", "--dataset", "digits", "--recipe", "demo", "--resume", "--network", training.name]
            arguments += [*training.options, "--out", str(home / "runs")]
            process = PROCESSES.Process(target=run, args=(arguments, home / f"{training.name}.log"))
            process.start()
            training.process = process
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
