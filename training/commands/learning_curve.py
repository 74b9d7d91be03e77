"""`duet learning-curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.commands.stop import stop
from training.commands.options import (
    Colour,
    DataDir,
    DatasetSpec,
    ImageSize,
    SkipUnreadable,
    Source,
    load_data,
    need_training_extra,
)


def learning_curve(
    dataset: DatasetSpec = "digits",
    source: Source = None,
    out: Annotated[Path, typer.Option(help="Folder for the report, its figure and the results.")] = Path(
        "runs/learning-curve"
    ),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Measure the accuracy of classifiers trained on 10, 30, 100, 300 and 1,000 labels a class.

    The classifiers are logistic regression, an SVM, a GRU and the CNN: plain, augmented, with synthetic images and,
    with --from, started from a classifier of other data. After Ctrl-C the same command goes on where it stopped.
    """
    need_training_extra()
    from services.inference.bundle import BundleError  # noqa: PLC0415
    from training.studies.learning_curve.report import report  # noqa: PLC0415
    from training.studies.learning_curve.run import learning_curve as run  # noqa: PLC0415

    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        written = report(run(data, source, results := out / f"learning_curve_{data.name}.json"), out)
    except KeyboardInterrupt:
        stop(f"interrupted; {results} has the results so far, and the same command goes on from there", status=130)
    except (ValueError, RuntimeError, BundleError) as error:
        stop(str(error))
    Console().print(f"report: {written}", highlight=False, soft_wrap=True)
