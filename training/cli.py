"""The `duet` command: the one place that puts the two halves together. torch is imported by `train` alone."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from services.commands import cache, generate, models, predict, serve
from services.commands.stop import stop
from training.options import (
    Colour,
    DataDir,
    DatasetSpec,
    ImageSize,
    Out,
    SkipUnreadable,
    Source,
    data_of,
    load_data,
    need_training_extra,
)

if TYPE_CHECKING:
    from services.inference.bundle import Bundle
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
app.command()(generate.generate)


class Network(StrEnum):
    """What can be trained."""

    all = "all"
    logistic = "logistic"
    svm = "svm"
    gru = "gru"
    cnn = "cnn"
    vae = "vae"
    cvae = "cvae"
    gan = "gan"
    scorer = "scorer"


@app.command()
def train(
    dataset: DatasetSpec = "digits",
    recipe: Annotated[
        str,
        typer.Option(
            help="demo: small networks for digits; classic: the textbook CNN and VAE, and a DCGAN; reference: the best "
            "in some megabytes and tens of minutes each; baselines: logistic regression, an SVM and a GRU beside it."
        ),
    ] = "demo",
    network: Annotated[
        list[Network] | None, typer.Option(help="May be repeated; left out: all that the recipe has.")
    ] = None,
    source: Source = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="With --from: train the last layer alone.")] = False,
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE:COUNT",
            help="Add so many samples of a stored conditional generator to the CNN's training images; the other splits "
            "stay real.",
        ),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Change every training batch of the CNN as the recipe says.")
    ] = True,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Stored classifier that watches the GAN for a collapse and chooses its best epoch, NAME or "
            "NAME:VERSION; left out: the CNN that is trained with it."
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Stored classifier that the scorer is made of; left out: the CNN trained with it, or else the stored "
            "CNN of the same data."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Stored VAE that the scorer is made of; left out: one trained with it, or else a small one of its own."
        ),
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
    need_training_extra()
    from training.recipes import RECIPES  # noqa: PLC0415
    from training.train import NETWORKS  # noqa: PLC0415

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    how, asked = RECIPES[recipe], set(network or [Network.all])
    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)

    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import BundleError, load  # noqa: PLC0415
    from training.synthetic import with_samples  # noqa: PLC0415
    from training.train import train as run  # noqa: PLC0415
    from training.variant import variant  # noqa: PLC0415

    try:
        if source or freeze or synthetic or not augment:
            if asked - {Network.cnn, Network.all}:
                raise ValueError("--from, --freeze, --synthetic and --no-augment are for the CNN; give --network cnn")
            how = variant(how, data.name, source=source, frozen=freeze, augmented=augment)
        if synthetic:
            samples, _, count = synthetic.rpartition(":")
            if not (samples and count.isdigit() and int(count)):
                raise ValueError(f"--synthetic {synthetic}: give BUNDLE:COUNT, for instance digits-gan:2000")
            data = with_samples(data, samples, int(count), seed=seed)
            how = replace(how, name=f"{how.name} --synthetic {registry.find(samples).tag}:{count}")
        chosen = [name for name in NETWORKS if name in asked or (Network.all in asked and getattr(how, name))]
        bundles = run(
            data,
            how,
            chosen,
            seed=seed,
            out=out,
            resume=resume,
            accelerator=accelerator,
            devices=devices,
            judge=load(registry.find(judge).path) if judge else None,
            classifier=_classifier(classifier, data, chosen),
            generator=load(registry.find(generator).path) if generator else None,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None  # the loop has said where its checkpoint is
    except (ValueError, RuntimeError, BundleError) as error:
        stop(str(error))
    for bundle in bundles:
        Console().print(f"stored {registry.store(bundle).tag}", highlight=False)


def _classifier(name: str | None, data: Dataset, networks: Sequence[str]) -> Bundle | None:
    """The scorer's classifier, where it is not trained with it."""
    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import load  # noqa: PLC0415
    from training.publish import slug  # noqa: PLC0415

    if name is None and ("scorer" not in networks or "cnn" in networks or not data.class_names):
        return None
    return load(registry.find(name or f"{slug(data.name)}-cnn").path)


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
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Classifiers: also attacks, checks of the explanations, corruptions of every image. Generators: also "
            "the likelihood of every image, a GAN's samplers, a classifier trained on samples alone. Minutes, not "
            "seconds.",
        ),
    ] = False,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Evaluate a stored bundle's graphs on a test split and write a report with pictures.

    Metrics for every kind of bundle; for classifiers also the worst mistakes and what corruptions of the images cost.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import load  # noqa: PLC0415
    from training.evaluation.report import add_chapter  # noqa: PLC0415
    from training.evaluation.report import evaluate as run  # noqa: PLC0415

    with models.explained():
        bundle = load(registry.find(model).path)
        referee = load(registry.find(judge).path) if judge else None
    data = data_of(bundle, dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        metrics = run(bundle, data, judge=referee, out=out, full=full)
        if full and bundle.manifest.task == "generation":
            from training.accuracy_score import classification_accuracy_score  # noqa: PLC0415

            score = classification_accuracy_score(bundle, data)
            if score:
                add_chapter(out, "A classifier trained on samples alone", score)
            metrics |= score
    except ValueError as error:
        stop(str(error))
    for name, value in metrics.items():
        Console().print(f"{name:40} {value:.6g}", highlight=False)
    Console().print(f"report: {out / 'report.md'}", highlight=False, soft_wrap=True)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A classifier, NAME or NAME:VERSION.")],
    second: Annotated[str, typer.Argument(help="The one to hold against it, trained with the same data.")],
    dataset: Annotated[str | None, typer.Option(help="As in train; left out: the data both were trained on.")] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Put two classifiers side by side on the same test images, and say whether one is really better.

    Accuracy, NLL, calibration, size, speed, agreement; McNemar's exact test on the images that only one has right.
    """
    need_training_extra()
    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import load  # noqa: PLC0415
    from training.evaluation.compare import compare as run  # noqa: PLC0415
    from training.evaluation.compare import require_comparable  # noqa: PLC0415

    with models.explained():
        one, other = (load(registry.find(model).path) for model in (first, second))
    try:
        require_comparable(one, other)
        data = data_of(one, dataset, data_dir, image_size, colour, skip_unreadable)
        comparison = run(one, other, data)
    except ValueError as error:
        stop(str(error))
    typer.echo(comparison.markdown())


@app.command()
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


@app.command()
def cross_validate(
    dataset: DatasetSpec = "digits",
    recipe: Annotated[
        str, typer.Option(help="One whose CNN keeps an average of its weights: reference.")
    ] = "reference",
    folds: Annotated[int, typer.Option(help="Parts, each held out once.", min=2)] = 5,
    seed: Annotated[int, typer.Option(help="Of the training; the folds are always the same.", min=0)] = 0,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train a recipe's CNN on all but one part of the images, in turn, and print the accuracy on what was held out."""
    need_training_extra()
    from training.cross_validation import cross_validate as run  # noqa: PLC0415
    from training.recipes import RECIPES  # noqa: PLC0415

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        accuracies = run(data, RECIPES[recipe], folds=folds, seed=seed)
    except KeyboardInterrupt:
        stop("interrupted", status=130)
    except (ValueError, RuntimeError) as error:
        stop(str(error))
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    typer.echo(f"accuracy {mean:.2%} ± {spread:.2%} (standard deviation over {folds} folds)")


@app.command()
def learning_curve(
    dataset: DatasetSpec = "digits",
    source: Source = None,
    out: Annotated[Path, typer.Option(help="Folder for the report, its figure and the results so far.")] = Path(
        "runs/learning-curve"
    ),
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Compare classifiers on 10, 30, 100, 300 and 1,000 labels a class: is a CNN worth it?

    Logistic regression, an SVM, a GRU and the CNN: plain, augmented, with synthetic images and, with --from, started
    from other data. Ctrl-C keeps what is measured, and the same command goes on from there.
    """
    need_training_extra()
    from services.inference.bundle import BundleError  # noqa: PLC0415
    from training.curves.curve import learning_curve as run  # noqa: PLC0415
    from training.curves.report import report  # noqa: PLC0415

    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    try:
        written = report(run(data, source, results := out / f"learning_curve_{data.name}.json"), out)
    except KeyboardInterrupt:
        stop(f"interrupted; what was measured is in {results}, and the same command goes on from there", status=130)
    except (ValueError, RuntimeError, BundleError) as error:
        stop(str(error))
    Console().print(f"report: {written}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the console command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `duet models list | head` ends quietly
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.exit(app())
