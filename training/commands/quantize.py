"""`duet quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.commands.stop import stop
from training.commands.options import Colour, DataDir, ImageSize, SkipUnreadable, data_of, need_training_extra


def quantize(
    model: Annotated[str, typer.Argument(help="A classifier, NAME or NAME:VERSION.")],
    dataset: Annotated[
        str | None, typer.Option(help="As in `duet train`. Default: the data that the model was trained on.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the bundle NAME-int8.")] = Path("runs/int8"),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Make the int8 version of a classifier, NAME-int8, and compare the two.

    The ranges come from training images; temperature and prediction sets are fitted again. The int8 version is stored
    if it is better: it loses at most 0.1 points of validation accuracy, is smaller, and is faster on this machine in
    batches of 1 and of 64.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415

    bundle = registry.load(model)
    data = data_of(bundle, dataset, data_dir, image_size, colour, skip_unreadable)
    from training.kinds import product_of  # noqa: PLC0415 (imports PyTorch, which takes seconds)
    from training.publishing.quantize import quantize as run  # noqa: PLC0415
    from training.publishing.quantize import wins  # noqa: PLC0415

    try:
        int8, comparison = run(product_of(bundle.manifest), bundle, data, out)
    except (ValueError, RuntimeError) as error:
        stop(str(error))
    typer.echo(comparison.markdown() + "\n")
    if wins(comparison):
        typer.echo(f"int8 is better: stored {registry.store(int8).tag}")
    else:
        typer.echo(
            "int8 is not smaller and faster at both batch sizes on this machine: not stored.\n"
            f"To store it all the same: duet models import {int8.path}"
        )
