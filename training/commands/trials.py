"""`duet trials`."""

from __future__ import annotations

from enum import StrEnum
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
    load_data,
    need_training_extra,
)


class Protocol(StrEnum):
    """Which images are left out of the training."""

    one_class = "one-class"
    held_out = "held-out"


def trials(
    protocol: Annotated[
        Protocol,
        typer.Argument(
            help="one-class: train on the images of one class, without its name; the other classes are the anomalies. "
            "held-out: train on six classes of ten, five times; the other four are the anomalies."
        ),
    ],
    dataset: DatasetSpec = "digits",
    out: Annotated[Path, typer.Option(help="Folder for the report, its figure and the results.")] = Path("runs/trials"),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train scorers without some classes, and measure how well they find those classes.

    The report has the AUROC with its interval, the share found at a p-value of 1 %, and the rate of false alarms.
    After Ctrl-C the same command goes on where it stopped.
    """
    need_training_extra()
    from training.studies.anomaly_trials.held_out import held_out  # noqa: PLC0415
    from training.studies.anomaly_trials.one_class import one_class  # noqa: PLC0415
    from training.studies.anomaly_trials.recipe import METHOD, fit_in, recipes  # noqa: PLC0415
    from training.studies.anomaly_trials.report import trials_report  # noqa: PLC0415

    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    run = one_class if protocol is Protocol.one_class else held_out
    results = out / f"{protocol.replace('-', '_')}_{data.name}.json"
    try:
        fit = fit_in(out / "training", data.name)
        written = trials_report(run(data, fit, results, METHOD, recipes(data.name)), out)
    except KeyboardInterrupt:
        stop(f"interrupted; {results} has the results so far, and the same command goes on from there", status=130)
    except (ValueError, RuntimeError) as error:
        stop(str(error))
    Console().print(f"report: {written}", highlight=False, soft_wrap=True)
