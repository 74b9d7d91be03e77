"""`duet quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.commands import models
from services.commands.stop import stop
from training.options import Colour, DataDir, ImageSize, SkipUnreadable, data_of, need_training_extra


def quantize(
    model: Annotated[str, typer.Argument(help="A classifier, NAME or NAME:VERSION.")],
    dataset: Annotated[
        str | None, typer.Option(help="As in train; left out: the data the model was trained on.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the bundle NAME-int8.")] = Path("runs/int8"),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Make a classifier's int8 twin, NAME-int8, and measure it beside the float32 one.

    Ranges come from training images; temperature and prediction sets are fitted again. It is stored if it wins: at most
    0.1 points of accuracy lost, smaller, and faster on this machine one by one and in batches of 64.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import load  # noqa: PLC0415
    from training.quantize import quantize as run  # noqa: PLC0415
    from training.quantize import wins  # noqa: PLC0415

    with models.explained():
        bundle = load(registry.find(model).path)
    data = data_of(bundle, dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        int8, comparison = run(bundle, data, out)
    except ValueError as error:
        stop(str(error))
    typer.echo(comparison.markdown() + "\n")
    if wins(comparison):
        typer.echo(f"int8 wins. stored {registry.store(int8).tag}")
    else:
        typer.echo(
            "int8 does not win: it is not smaller and faster at both batch sizes here, so it is not stored.\n"
            f"`duet models import {int8.path}` stores it all the same."
        )
