"""`duet compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from services.commands.stop import stop
from training.commands.options import Colour, DataDir, ImageSize, SkipUnreadable, data_of, need_training_extra


def compare(
    first: Annotated[str, typer.Argument(help="A classifier, NAME or NAME:VERSION.")],
    second: Annotated[str, typer.Argument(help="The classifier to compare it with, trained on the same data.")],
    dataset: Annotated[
        str | None, typer.Option(help="As in `duet train`. Default: the data that both were trained on.")
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Compare two classifiers on the same test images.

    The table has accuracy, NLL, calibration, size, speed and agreement. The p-value of McNemar's exact test says
    whether the difference in accuracy may be chance.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415

    one, other = (registry.load(model) for model in (first, second))
    from training.data.seen import may_have_seen  # noqa: PLC0415
    from training.evaluation.classifiers.compare import compare as run  # noqa: PLC0415 (imports PyTorch, which takes seconds)
    from training.evaluation.classifiers.compare import require_comparable  # noqa: PLC0415

    try:
        require_comparable(one, other)
        data = data_of(one, dataset, data_dir, image_size, colour, skip_unreadable)
        comparison = run(one, other, data)
    except ValueError as error:
        stop(str(error))
    typer.echo(comparison.markdown())
    if why := may_have_seen(one, data):
        typer.echo(f"note: {why}; if they have seen the test images, the figures are too good", err=True)
