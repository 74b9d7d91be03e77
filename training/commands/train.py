"""`duet train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from services.commands.stop import stop
from training.commands.options import (
    Colour,
    DataDir,
    DatasetSpec,
    ImageSize,
    Out,
    Seed,
    SkipUnreadable,
    Source,
    TrustParts,
    load_data,
    need_training_extra,
)

if TYPE_CHECKING:
    from services.inference.bundle import Bundle
    from training.data import Dataset


ALL = "all"  # networks of a recipe


class Accelerator(StrEnum):
    """Where it is trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def train(
    dataset: DatasetSpec = "digits",
    recipe: Annotated[
        str,
        typer.Option(
            help="demo: small networks for the digits, about a minute; classic: a textbook CNN and VAE, and a DCGAN; "
            "reference: the most accurate networks of some megabytes, tens of minutes each; baselines: logistic "
            "regression, an SVM and a GRU."
        ),
    ] = "demo",
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="A network of the recipe, for instance cnn; may be given several times. Default: all of them."
        ),
    ] = None,
    source: Source = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="With --from: train the last layer alone.")] = False,
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE:COUNT",
            help="Add COUNT samples of a stored conditional generator to the CNN's training images. The other splits "
            "have real images alone.",
        ),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Augment the CNN's training images as the recipe defines it.")
    ] = True,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Stored classifier, NAME or NAME:VERSION, that detects a collapse of the GAN and chooses its best "
            "epoch. Default: the CNN trained by the same command."
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Stored classifier that becomes part of the scorer. Default: the CNN trained by the same command, or "
            "else the stored CNN of the same data."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Stored VAE that becomes part of the scorer. Default: the VAE trained by the same command, or else a "
            "small one that is trained for the scorer."
        ),
    ] = None,
    trust_parts: TrustParts = False,
    seed: Seed = 0,
    out: Out = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of the run.")] = False,
    accelerator: Annotated[
        Accelerator, typer.Option(help="auto: cuda where there is a device, otherwise cpu.")
    ] = Accelerator.auto,
    devices: Annotated[
        int,
        typer.Option(help="Number of processes, one for each device. Leave it out under `torchrun`.", min=1, max=64),
    ] = 1,
    data_dir: DataDir = None,
    image_size: ImageSize = 28,
    colour: Colour = False,
    skip_unreadable: SkipUnreadable = False,
) -> None:
    """Train networks, export them to ONNX, verify, gate and store them.

    The best weights of each network become a bundle in the model store, from which `duet serve` reads. Ctrl-C keeps a
    checkpoint; the same command with --resume continues from it, to the same weights as without the interruption.
    Without --resume, a run that has a checkpoint is not started again.
    """
    need_training_extra()
    data = load_data(dataset, data_dir, image_size, colour, skip_unreadable)
    import torch  # noqa: PLC0415 (takes seconds, and a mistake in the data is told at once)

    from training.kinds import KINDS  # noqa: PLC0415
    from training.recipes import RECIPES  # noqa: PLC0415

    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe!r} is not one of {', '.join(RECIPES)}", param_hint="--recipe")
    if accelerator is Accelerator.cuda and not torch.cuda.is_available():
        stop("--accelerator cuda: PyTorch finds no CUDA device on this machine; use --accelerator cpu")
    for name in set(network or ()) - {ALL, *KINDS}:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join([ALL, *KINDS])}", param_hint="--network")
    how, asked = RECIPES[recipe], set(network or [ALL])

    from services.inference import registry  # noqa: PLC0415
    from services.inference.bundle import BundleError  # noqa: PLC0415
    from training.data.seen import TRUSTED, may_have_seen, require_other  # noqa: PLC0415
    from training.recipes.overrides import variant  # noqa: PLC0415
    from training.recipes.synthetic_data import with_samples  # noqa: PLC0415
    from training.train import train as run  # noqa: PLC0415

    try:
        if source or freeze or synthetic or not augment:
            if asked - {"cnn", ALL}:
                raise ValueError("--from, --freeze, --synthetic and --no-augment are for the CNN; give --network cnn")
            how = variant(how, data.name, source=source, frozen=freeze, augmented=augment)
        doubtful = source is not None and require_other(registry.load(source), data, trusted=trust_parts)
        if synthetic:
            samples, _, count = synthetic.rpartition(":")
            if not (samples and count.isdigit() and int(count)):
                raise ValueError(f"--synthetic {synthetic}: give BUNDLE:COUNT, for instance digits-gan:2000")
            doubtful |= may_have_seen(registry.load(samples), data) is not None
            data = with_samples(data, samples, int(count), seed=seed, trusted=trust_parts)
            how = replace(how, name=f"{how.name} --synthetic {registry.find(samples).tag}:{count}")
        if doubtful:
            how = replace(how, name=how.name + TRUSTED)
        chosen = [name for name in KINDS if name in asked or (ALL in asked and name in how.networks)]
        bundles = run(
            data,
            how,
            chosen,
            seed=seed,
            out=out,
            resume=resume,
            accelerator=accelerator.value,
            devices=devices,
            judge=registry.load(judge) if judge else None,
            classifier=_classifier(classifier, data, chosen),
            generator=registry.load(generator) if generator else None,
            trust_parts=trust_parts,
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
    from training.data.names import slug  # noqa: PLC0415
    from training.kinds import KINDS  # noqa: PLC0415

    of = next(kind.name for kind in KINDS.values() if "classifier" in kind.becomes)
    needed = of not in networks and any("classifier" in KINDS[network].parts for network in networks)
    if name is None and not (needed and data.class_names):
        return None
    return registry.load(name or f"{slug(data.name)}-{of}")
