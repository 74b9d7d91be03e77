"""What a person sees of a training run: a bar with loss and time left, or a line an epoch without a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


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

    def epoch(
        self, number: int, epochs: int, losses: Mapping[str, float], validation: Mapping[str, float], seconds: float
    ) -> None:
        if self._lines:
            write(
                f"{self._network} epoch {number}/{epochs} ({seconds:.1f} s): {_text(losses)}; "
                f"on validation: {_text(validation)}"
            )


def _text(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
