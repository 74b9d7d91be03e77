"""`duet generate`: many samples of a stored generator as files, for training and for looking at; no service needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from services.commands.stop import stop
from services.inference import registry
from services.inference.bundle import BundleError, load
from services.inference.chain import Chains
from services.inference.generator import Generator
from services.inference.noise import SEED_LIMIT, latents

PROVENANCE = "provenance.json"
COUNT = 1000
SHARD = 1000  # samples that are written together


class Form(StrEnum):
    """How samples are kept."""

    png = "png"
    npz = "npz"


class Sampler(StrEnum):
    """Where samples come from."""

    prior = "prior"
    metropolis_hastings = "metropolis-hastings"


def generate(
    model: Annotated[str, typer.Option(help="A stored generator, NAME or NAME:VERSION.")],
    out: Annotated[Path, typer.Option(help="Folder for the samples, made if need be.")],
    count: Annotated[
        int | None,
        typer.Option(help="Samples in all, of every class as many.", show_default=str(COUNT), min=1),
    ] = None,
    histogram: Annotated[
        str | None, typer.Option(metavar="CLASS=COUNT,...", help="Samples of each class, in place of --count.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="png: a folder a class, as `duet train` takes it; npz: images and labels.")
    ] = Form.png,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0, max=SEED_LIMIT - 1)] = 0,
    truncation: Annotated[float, typer.Option(help="Scale of the latents; below 1: more typical.", max=2)] = 1.0,
    sampler: Annotated[
        Sampler, typer.Option(help="metropolis-hastings: of 32 draws an image, choose by the GAN's discriminator.")
    ] = Sampler.prior,
) -> None:
    """Draw many samples into files; sample i is the one that /generate gives for that seed, class and i.

    An interrupted run goes on with the same command. provenance.json says what drew the samples.
    """
    try:
        bundle = load(registry.find(model).path)
        if bundle.manifest.task != "generation":
            raise BundleError(f"{model}: a bundle for {bundle.manifest.task}, which draws no images")
        generator = Generator(bundle)
    except BundleError as error:
        stop(str(error))
    if sampler is not Sampler.prior and not generator.can_discriminate:
        stop(f"--sampler {sampler.value}: {bundle.name} has no discriminator; leave it out")
    if not truncation > 0:
        stop(f"--truncation {truncation}: give a number above 0, up to 2")
    labels = _labels(generator, count, histogram)
    names = bundle.manifest.class_names if generator.conditional else ()
    asked = {
        "model": f"{bundle.name}:{bundle.version}",
        "digest": bundle.digest,
        "seed": seed,
        "truncation": truncation,
        "sampler": sampler.value,
        "count": len(labels),
        "histogram": {name: int((labels == label).sum()) for label, name in enumerate(names)},
        "format": form.value,
        "class_names": list(names),
    }
    done = _begin(out, asked)
    write = {Form.png: _write_png, Form.npz: _write_npz}[form]
    console = Console(stderr=True)
    try:
        for start in track(range(done, len(labels), SHARD), "drawing", console=console, transient=True):
            items = range(start, min(start + SHARD, len(labels)))
            chosen = labels[items.start : items.stop]
            given = {"labels": chosen} if generator.conditional else {}
            draw = _draw if sampler is Sampler.prior else _choose
            write(out, items, draw(generator, seed, items, given, truncation), chosen, names)
            _note(out, asked | {"finished": items.stop})
    except KeyboardInterrupt:
        stop(f"interrupted; the same command goes on from what is in {out}", status=130)
    console.print(f"{len(labels):,} samples of {asked['model']} in {out}", highlight=False, soft_wrap=True)


def _draw(
    generator: Generator, seed: int, items: Sequence[int], given: dict[str, np.ndarray], truncation: float
) -> np.ndarray:
    """One sample an item, uint8 [N,C,H,W]."""
    noise = latents(seed, items, generator.latent_size, truncation=truncation)
    return generator.run("decode", {"latents": generator.latents(noise, given.get("labels")), **given})["images"]


def _choose(
    generator: Generator, seed: int, items: Sequence[int], given: dict[str, np.ndarray], truncation: float
) -> np.ndarray:
    """Samples at the ends of Metropolis-Hastings chains, uint8 [N,C,H,W]."""
    chains = Chains(seed, items)
    for numbers in chains.draws():
        images = _draw(generator, seed, numbers, given, truncation)
        chains.propose(images, generator.run("discriminate", {"images": images, **given})["log_ratio"])
    return chains.images


def _labels(generator: Generator, count: int | None, histogram: str | None) -> np.ndarray:
    """Class indices int64 [count]: in turn, or as the histogram says, one class after the other."""
    if histogram is None:
        return generator.classes_in_turn(COUNT if count is None else count)
    if count is not None:
        stop("--count: --histogram says how many samples; leave one of them out")
    names = generator.bundle.manifest.class_names
    if not generator.conditional:
        stop(f"--histogram: {generator.bundle.name} does not draw by class; give --count")
    parts = []
    for part in histogram.split(","):
        name, _, number = part.rpartition("=")
        if name not in names or not number.isdigit():
            stop(f"--histogram {part!r}: give CLASS=COUNT with one of the classes {', '.join(names)}")
        parts.append(np.full(int(number), names.index(name), np.int64))
    labels = np.concatenate(parts)
    if not len(labels):
        stop("--histogram: it asks for no sample at all")
    return labels


def _begin(out: Path, asked: dict[str, Any]) -> int:
    """How many samples are there already; refuses a folder with other ones."""
    path = out / PROVENANCE
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            stop(f"{out}: there is something else in this folder; give --out a new one")
        out.mkdir(parents=True, exist_ok=True)
        _note(out, asked | {"finished": 0})
        return 0
    there = json.loads(path.read_text())
    finished = int(there.pop("finished"))
    different = sorted(name for name in asked if there.get(name) != asked[name])
    if different:
        was = ", ".join(f"{name} {there.get(name)!r}" for name in different)
        stop(f"{out}: holds other samples ({was}); give --out a new folder, or the same options to go on")
    return finished


def _note(out: Path, facts: dict[str, Any]) -> None:
    """Written whole or not at all: what it counts as finished is finished."""
    partial = out / f".{PROVENANCE}"
    partial.write_text(json.dumps(facts, indent=2) + "\n")
    os.replace(partial, out / PROVENANCE)


def _write_png(out: Path, items: range, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> None:
    for item, image, label in zip(items, images, labels.tolist(), strict=True):
        # A class may be called anything; its folder must be a folder.
        folder = out / (re.sub(r"[^\w .-]", "_", names[label]) if names else ".")
        folder.mkdir(exist_ok=True)
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{item:08d}.png")


def _write_npz(out: Path, items: range, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> None:
    partial = out / ".shard.npz"
    arrays: dict[str, Any] = {"images": images} | ({"labels": labels} if names else {})
    np.savez_compressed(partial, **arrays)
    os.replace(partial, out / f"samples-{items.start // SHARD:05d}.npz")
