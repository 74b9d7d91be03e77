"""What a person sees of a training: a bar with loss and time left, or without a terminal a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

HEARTBEAT = 10  # seconds between lines where there is no terminal


def write(line: str) -> None:
    """One plain line on standard error, which is left to messages; results go to standard output."""
    Console(stderr=True).print(line, soft_wrap=True, markup=False, highlight=False)


class Progress:
    """Counts the steps of one network's training; silent where `shown` is false (every process but the first)."""

    def __init__(self, network: str, steps: int, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._lines = shown and not console.is_terminal
        self._network = network
        self._steps = steps
        self._start = self._said = time.monotonic()
        self._first: int | None = None  # steps that were done before, in a run that is resumed
        self._task = self._bar.add_task(network, total=steps, loss="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        self._bar.update(self._task, completed=done, loss=_text(losses))
        if self._first is None:
            self._first, self._start = done, time.monotonic()
        elif self._due():
            left = (time.monotonic() - self._start) * (self._steps - done) / (done - self._first)
            self._say(f"{done / self._steps:.0%}, about {_duration(left)} left: {_text(losses)}")

    def epoch(
        self, number: int, epochs: int, losses: Mapping[str, float], validation: Mapping[str, float], seconds: float
    ) -> None:
        if number == epochs or self._due():
            self._say(f"epoch {number}/{epochs} ({seconds:.1f} s): {_text(losses)}; on validation: {_text(validation)}")

    def _due(self) -> bool:
        return time.monotonic() - self._said >= HEARTBEAT

    def _say(self, line: str) -> None:
        if self._lines:
            write(f"{self._network} {line}")
            self._said = time.monotonic()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
