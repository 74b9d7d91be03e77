"""`duet --version`: what a bug report needs to say about an installation."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from services import __version__

LIBRARIES = ("bentoml", "onnxruntime", "numpy", "redis", "torch", "onnx", "lightning-fabric")


def show_version(wanted: bool) -> None:
    """Print one line each for Duet, Python, the libraries and the platform, and exit."""
    if not wanted:
        return
    lines = [("duet", __version__), ("python", f"{platform.python_version()} ({platform.python_implementation()})")]
    lines += [(name, _installed(name)) for name in LIBRARIES]
    lines.append(("platform", platform.platform()))
    for name, value in lines:
        typer.echo(f"{name:17}{value}")
    raise typer.Exit


def _installed(name: str) -> str:
    """By its metadata: importing torch takes seconds."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
