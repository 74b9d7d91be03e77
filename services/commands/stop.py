"""How a command ends that cannot do what it was asked: one line on stderr, and a status."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape


def stop(message: str, status: int = 1) -> NoReturn:
    """Print what went wrong and the remedy, and exit."""
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(status)
