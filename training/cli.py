"""The `duet` command: the one place that puts the two halves together. torch is imported by `train` alone."""

from __future__ import annotations

import os
import signal
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
from training.commands import compare, cross_validate, evaluate, learning_curve, quantize, trials
from training.options import (
    Colour,
    DataDir,
    DatasetSpec,
    ImageSize,
    Out,
    SkipUnreadable,
    Source,
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
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(quantize.quantize)
app.command()(cross_validate.cross_validate)
app.command()(learning_curve.learning_curve)
app.command()(trials.trials)


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


def main() -> None:
    """Entry point of the console command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `duet models list | head` ends quietly
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.exit(app())
