"""`duet predict`: image files against a running service, for people without curl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from services.commands.stop import stop

SUFFIXES = {".png", ".jpg", ".jpeg"}
BATCH = 64


class Task(StrEnum):
    """What to ask about an image."""

    classify = "classify"
    score = "score"


def predict(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="PNG or JPEG files, or folders of them.")],
    task: Annotated[Task, typer.Option(help="classify: what it shows; score: how unusual it is.")] = Task.classify,
    url: Annotated[str, typer.Option(help="Where the service listens.")] = "http://127.0.0.1:3000",
    model: Annotated[str | None, typer.Option(help="NAME or NAME:VERSION; left out: the service's choice.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Classify or score image files with a service that is running (`duet serve`)."""
    files = list(_files(paths))
    if not files:
        raise typer.BadParameter(f"no PNG or JPEG file in {', '.join(map(str, paths))}")
    table = Table("file", *(["class", "probability"] if task is Task.classify else ["p-value", "verdict"]))
    for file, answer in _ask(files, f"{url.rstrip('/')}/{task}", model):
        if as_json:
            typer.echo(json.dumps({"file": str(file), **answer}))
        elif task is Task.classify:
            table.add_row(escape(str(file)), escape(answer["label"]), f"{answer['probability']:.4f}")
        else:
            verdict = "[red]anomalous[/]" if answer["anomalous"] else "normal"
            table.add_row(escape(str(file)), f"{answer['p_value']:.4f}", verdict)
    if not as_json:
        Console().print(table)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        else:
            yield path


def _ask(files: list[Path], url: str, model: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
    with httpx.Client(timeout=60) as client:
        for batch in track(batches, "asking", console=Console(stderr=True), transient=True, disable=len(batches) == 1):
            parts = [("images", (file.name, file.read_bytes())) for file in batch]
            try:
                response = client.post(url, files=parts, data={"model": model} if model else {})
            except (httpx.TransportError, httpx.InvalidURL) as error:
                stop(f"{url}: {error}; is the service running? `duet serve` starts one")
            if response.is_error:
                stop(f"{url}: {response.status_code}: {_detail(response)}")
            answers = response.json()
            yield from zip(batch, answers.get("predictions") or answers["scores"], strict=True)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
