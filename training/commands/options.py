"""Options that several commands of `duet` take, and what becomes of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from services.commands.stop import stop

if TYPE_CHECKING:
    from services.inference.bundle import Bundle
    from training.data import Dataset

DatasetSpec = Annotated[
    str,
    typer.Option(
        help="digits, mnist, fashion-mnist, or folder:PATH with a sub-folder for each class (none: unlabelled)."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with the IDX files of mnist or fashion-mnist. Default: they are downloaded."),
]
ImageSize = Annotated[
    int, typer.Option(help="Height and width in pixels to which the images of a folder are resized.", min=8, max=256)
]
Colour = Annotated[bool, typer.Option("--colour", help="Keep the images of a folder in colour. Default: grey.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images of a folder that cannot be read, and name each.")
]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Stored classifier of other data, NAME or NAME:VERSION: the CNN starts with its convolutions and a "
        "new last layer. The recipes demo and reference make such classifiers.",
    ),
]
TrustParts = Annotated[
    bool,
    typer.Option(
        "--trust-parts",
        help="Take stored models that may have been trained with today's calibration or test images. If they were, "
        "p-values are too small and metrics too good.",
    ),
]
Seed = Annotated[
    int,  # scikit-learn takes no larger one
    typer.Option(help="The same seed on the same machine gives the same weights.", min=0, max=2**32 - 1),
]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and pictures, one sub-folder for each run.")]


def data_of(
    bundle: Bundle, dataset: str | None, data_dir: Path | None, image_size: int, colour: bool, skip_unreadable: bool
) -> Dataset:
    """The data set that is asked for, or the one that `bundle` was trained with."""
    from training.data.names import BUILT_IN  # noqa: PLC0415

    trained_on = bundle.manifest.dataset.name
    if dataset is None and trained_on not in BUILT_IN:
        stop(f"--dataset: {bundle.name} was trained on the folder {trained_on!r}; give it as folder:PATH")
    return load_data(dataset or trained_on, data_dir, image_size, colour, skip_unreadable)


def load_data(spec: str, data_dir: Path | None, image_size: int, colour: bool, skip_unreadable: bool) -> Dataset:
    from training.data import load  # noqa: PLC0415

    on_unreadable: Literal["refuse", "skip"] = "skip" if skip_unreadable else "refuse"
    try:
        return load(spec, folder=data_dir, image_size=image_size, colour=colour, on_unreadable=on_unreadable)
    except (ValueError, OSError) as error:
        stop(f"--dataset {spec}: {str(error).removeprefix(f'{spec}: ').removeprefix(f'data {spec!r}: ')}")


def need_training_extra() -> None:
    if importlib.util.find_spec("torch") is None:
        stop("this command needs the train extra, and this is the serving install: pip install 'duet[train]'")
