"""How a command ends that cannot do what it was asked: one sentence on stderr, and a status."""

from __future__ import annotations

import errno
import re
import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup


def stop(message: str, status: int = 1) -> NoReturn:
    """Print what went wrong and the remedy on one line, and exit."""
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    Console(stderr=True).print(f"[red]error:[/] {escape(line)}", soft_wrap=True, highlight=False)
    raise typer.Exit(status)


class Commands(TyperGroup):
    """A group of commands in which a mistake of the user ends with a sentence and status 1, without a traceback."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Exception as error:
            reason = explanation(error)
            if reason is None:
                raise
            stop(reason)


def explanation(error: Exception) -> str | None:
    """The sentence for an error that the user can mend; None for a defect of Duet, which keeps its traceback."""
    if isinstance(error, OSError):
        return _of_system(error)
    # An error of a module that nobody has imported cannot have come, and importing it would make every start slower.
    for module, name in (
        ("services.inference.bundle", "BundleError"),
        ("services.settings", "SettingsError"),
        ("services.delivery.distribution", "DeliveryError"),
        ("bentoml.exceptions", "BentoMLException"),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return str(error)
    return None


def _of_system(error: OSError) -> str | None:
    if error.errno == errno.ENOSPC:
        return f"the disk is full ({error.strerror}); free some space and run the command again"
    if error.errno == errno.ENOTDIR and error.filename is None:
        return f"{error.strerror}; choose another path"  # BentoML's, of BENTOML_HOME
    if error.filename is None or error.errno == errno.EPIPE:
        return None
    file = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    remedy = "choose another path"
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "change its permissions, or choose another path"
    return f"{file}: {error.strerror}; {remedy}"
