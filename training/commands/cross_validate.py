"""`duet cross-validate`."""

from __future__ import annotations

import statistics
from typing import Annotated

import typer

from services.commands.stop import stop
from training.commands.options import (
    Colour,
    DataDir,
    DatasetSpec,
    ImageSize,
    SkipUnreadable,
    load_data,
    need_training_extra,
)


def cross_validate(
    dataset: DatasetSpec = "digits",
    recipe: Annotated[
        str, typer.Option(help="A recipe whose CNN keeps an average of its weights: reference.")
    ] = "reference",
    folds: Annotated[int, typer.Option(help="Number of parts; each is held out once.", min=2)] = 5,
    seed: Annotated[
        int, typer.Option(help="Seed of the training. The folds do not depend on it.", min=0, max=2**32 - 1)
    ] = 0,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Cross-validate a recipe's CNN: train on all parts of the images but one, in turn, and test on that one."""
    need_training_extra()
    from training.recipes import RECIPES  # noqa: PLC0415
    from training.studies.cross_validation import cross_validate as run  # noqa: PLC0415

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        accuracies = run(data, RECIPES[recipe], folds=folds, seed=seed)
    except KeyboardInterrupt:
        stop("interrupted; nothing was kept", status=130)
    except (ValueError, RuntimeError) as error:
        stop(str(error))
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    typer.echo(f"accuracy {mean:.2%} ± {spread:.2%} (standard deviation over {folds} folds)")
