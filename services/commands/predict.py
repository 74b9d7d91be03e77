"""`duet predict`: image files against a running service, for people without curl."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from services.commands.stop import stop
from services.inference.image_files import find

if TYPE_CHECKING:
    import httpx

Answer = tuple[Path, dict[str, Any]]

BATCH = 64


class Task(StrEnum):
    """What to ask about an image."""

    classify = "classify"
    score = "score"


def predict(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="PNG or JPEG files, or folders of them.")],
    task: Annotated[
        Task, typer.Option(help="classify: the most probable class; score: a p-value, small for an unusual image.")
    ] = Task.classify,
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:3000",
    model: Annotated[
        str | None, typer.Option(help="NAME or NAME:VERSION. Default: the default model of the service.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of a table.")] = False,
) -> None:
    """Classify or score image files with a running service (`duet serve`).

    A folder is read with its sub-folders. Names that start with a dot are passed over.
    """
    try:
        files = list(_files(paths))
    except OSError as error:
        stop(f"paths: {error}; give folders that you may read")
    if not files:
        raise typer.BadParameter(
            f"no PNG or JPEG file in {', '.join(map(str, paths))}; give files or another folder", param_hint="paths"
        )
    table = Table("file", *(["class", "probability"] if task is Task.classify else ["p-value", "verdict"]))
    for file, answer in _ask(files, url, task, model):
        table.caption = f"answered by {answer['model']}"
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
        if not path.is_dir():
            yield path
            continue
        found = find(path)
        for sentence in found.skipped():
            typer.echo(f"{path}: {sentence}", err=True)
        for file in found.missing:
            typer.echo(f"skipped {path / file}: it is no file, or a link to none", err=True)
        yield from (path / file for file in found.images)


def _ask(files: list[Path], url: str, task: Task, model: str | None) -> Iterator[Answer]:
    import httpx  # noqa: PLC0415

    batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
    with httpx.Client(timeout=60) as client:
        for batch in track(batches, "asking", console=Console(stderr=True), transient=True, disable=len(batches) == 1):
            yield from _ask_of(batch, url, task, model, client)


def _ask_of(batch: list[Path], url: str, task: Task, model: str | None, client: httpx.Client) -> Iterator[Answer]:
    import httpx  # noqa: PLC0415

    parts = [("images", (file.name, file.read_bytes())) for file in batch]
    try:
        response = client.post(f"{url.rstrip('/')}/{task}", files=parts, data={"model": model} if model else {})
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        stop(f"--url {url}: {error}; give an address such as http://127.0.0.1:3000")
    except httpx.TransportError as error:
        stop(f"--url {url}: no answer ({error}); start the service with `duet serve`, or give its address")
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(batch) > 1:
        half = len(batch) // 2  # large files: fewer at a time
        yield from _ask_of(batch[:half], url, task, model, client)
        yield from _ask_of(batch[half:], url, task, model, client)
        return
    if response.is_error:
        _refused(response, url, batch)
    try:
        answers = response.json()
        model_of = {"model": "{name}:{version}".format(**answers["model"])}
        told = [
            (file, model_of | answer)
            for file, answer in zip(batch, answers.get("predictions") or answers["scores"], strict=True)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        stop(f"--url {url}: the answer is not one of Duet; another program listens there, give --url of the service")
    yield from told


def _refused(response: httpx.Response, url: str, batch: list[Path]) -> NoReturn:
    """End with the server's reason; it counts the images, so each number becomes the name of the file."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    named, files = re.subn(r"images\[(\d+)\]", lambda found: str(batch[int(found[1])]), detail)
    if files:
        stop(named)
    stop(f"--url {url}: {response.status_code}: {detail}")
