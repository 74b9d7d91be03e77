"""The `duet` command: the one place that puts the two halves together. torch is imported by `train` alone."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from services.commands import cache, models, predict, serve

if TYPE_CHECKING:
    from training.data import Dataset

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Train image models, serve them, and ask them.\n\n"
    "A first round trip, about a minute and a half:\n\n"
    "  duet train --dataset digits --recipe demo\n\n"
    "  duet models list\n\n"
    "  duet serve                      (in another terminal)\n\n"
    "  duet predict some-digit.png",
)
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.command()(serve.serve)
app.command()(predict.predict)


BUILT_IN = ("digits", "mnist", "fashion-mnist")


class Network(StrEnum):
    """What can be trained."""

    all = "all"
    logistic = "logistic"
    svm = "svm"
    gru = "gru"
    cnn = "cnn"
    vae = "vae"
    gan = "gan"


DatasetSpec = Annotated[
    str,
    typer.Option(help="digits, mnist, fashion-mnist, or folder:PATH (a sub-folder a class, or none for unlabelled)."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with the IDX files of mnist or fashion-mnist; left out: they are downloaded."),
]
ImageSize = Annotated[int, typer.Option(help="Side in pixels that folder images are resized to.", min=8, max=256)]
Colour = Annotated[bool, typer.Option("--colour", help="Keep folder images in colour instead of grey.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out folder images that cannot be read, naming each.")
]
Out = Annotated[Path, typer.Option(help="Folder for runs: checkpoints, logs, pictures.")]


@app.command()
def train(
    dataset: DatasetSpec = "digits",
    recipe: Annotated[
        str,
        typer.Option(
            help="demo: small networks for digits; classic: the textbook CNN and VAE, and a DCGAN; reference: the best "
            "classifier in a megabyte, for tens of minutes; baselines: logistic regression, an SVM and a GRU beside it."
        ),
    ] = "demo",
    network: Annotated[
        list[Network] | None, typer.Option(help="May be repeated; left out: all that the recipe has.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed on the same machine gives the same weights.", min=0)] = 0,
    out: Out = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one a device; `torchrun` sets it itself.", min=1)] = 1,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train, export to ONNX, verify, gate and store.

    Each network's best weights become a bundle in the model store: `duet serve` finds it there. Ctrl-C leaves a
    checkpoint, and the same command with --resume goes on from it to the very same weights.
    """
    _need_training_extra()
    from training.recipes import RECIPES  # noqa: PLC0415
    from training.train import NETWORKS  # noqa: PLC0415

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    asked = set(network or [Network.all])
    chosen = [name for name in NETWORKS if name in asked or (Network.all in asked and getattr(RECIPES[recipe], name))]
    data = _load(dataset, data_dir, image_size, colour, skip_unreadable)

    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import BundleError  # noqa: PLC0415
    from training.train import train as run  # noqa: PLC0415

    try:
        bundles = run(
            data, RECIPES[recipe], chosen, seed=seed, out=out, resume=resume, accelerator=accelerator, devices=devices
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the loop has said where its checkpoint is
    except (ValueError, RuntimeError, BundleError) as error:
        _fail(str(error))
    for bundle in bundles:
        Console().print(f"stored {registry.store(bundle).tag}", highlight=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="NAME or NAME:VERSION, as `duet models list` shows.")],
    dataset: Annotated[
        str | None, typer.Option(help="As in train; left out: the data the model was trained on.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Classifier that judges a generator's samples, NAME or NAME:VERSION.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md and its pictures.")] = Path("runs/evaluation"),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Evaluate a stored bundle's graphs on a test split and write a report with pictures."""
    _need_training_extra()
    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import load  # noqa: PLC0415
    from training.evaluation.report import evaluate as run  # noqa: PLC0415

    with models.explained():
        bundle = load(registry.find(model).path)
        referee = load(registry.find(judge).path) if judge else None
    trained_on = bundle.manifest.dataset.name
    if dataset is None and trained_on not in BUILT_IN:
        _fail(f"--dataset: {bundle.name} was trained on the folder {trained_on!r}; give it as folder:PATH")
    data = _load(dataset or trained_on, data_dir, image_size, colour, skip_unreadable)
    try:
        metrics = run(bundle, data, judge=referee, out=out)
    except ValueError as error:
        _fail(str(error))
    for name, value in metrics.items():
        Console().print(f"{name:40} {value:.6g}", highlight=False)
    Console().print(f"report: {out / 'report.md'}", highlight=False, soft_wrap=True)


def _load(spec: str, data_dir: Path | None, image_size: int, colour: bool, skip_unreadable: bool) -> Dataset:
    from training.data import load  # noqa: PLC0415

    on_unreadable: Literal["refuse", "skip"] = "skip" if skip_unreadable else "refuse"
    try:
        return load(spec, folder=data_dir, image_size=image_size, colour=colour, on_unreadable=on_unreadable)
    except (ValueError, OSError) as error:
        _fail(f"--dataset {spec}: {error}")


def _need_training_extra() -> None:
    if importlib.util.find_spec("torch") is None:
        _fail("training needs the train extra: pip install 'duet[train]' (the base install only serves)")


def _fail(message: str, *, status: int = 1) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(status)


def main() -> None:
    """Entry point of the console command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `duet models list | head` ends quietly
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.exit(app())
