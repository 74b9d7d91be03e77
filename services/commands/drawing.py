"""Samples of a stored generator as files: drawn some at a time, so that an interrupted run goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from services.commands.stop import stop
from services.inference import registry
from services.inference.bundle import BundleError
from services.inference.chain import Chains
from services.inference.generator import Generator
from services.inference.noise import latents

PROVENANCE = "provenance.json"
SHARD = 1000  # samples that are written together


def draw_files(
    model: str,
    out: Path,
    *,
    count: int | None,
    histogram: str | None,
    form: str,
    seed: int,
    truncation: float,
    chains: bool,
) -> None:
    """Draw with the stored generator `model` into the folder `out`; see `duet generate` for the other arguments.

    Raises:
        BundleError: there is no such bundle, it does not verify, or it draws no images.
    """
    bundle = registry.load(model)
    if bundle.manifest.task != "generation":
        raise BundleError(
            f"--model {model}: a bundle for {bundle.manifest.task}, which draws no images; give a generator"
        )
    generator = Generator(bundle)
    if chains and not generator.can_discriminate:
        stop(f"--sampler metropolis-hastings: {bundle.name} has no discriminator; leave the option out")
    if not truncation > 0:
        stop(f"--truncation {truncation}: give a number above 0, up to 2")
    labels = _labels(generator, count, histogram)
    names = bundle.manifest.class_names if generator.conditional else ()
    asked = {
        "model": f"{bundle.name}:{bundle.version}",
        "digest": bundle.digest,
        "seed": seed,
        "truncation": truncation,
        "sampler": "metropolis-hastings" if chains else "prior",
        "count": len(labels),
        "histogram": {name: int((labels == label).sum()) for label, name in enumerate(names)},
        "format": form,
        "class_names": list(names),
    }
    done = _begin(out, asked)
    write = {"png": _write_png, "npz": _write_npz}[form]
    console = Console(stderr=True)
    try:
        for start in track(range(done, len(labels), SHARD), "drawing", console=console, transient=True):
            items = range(start, min(start + SHARD, len(labels)))
            chosen = labels[items.start : items.stop]
            given = {"labels": chosen} if generator.conditional else {}
            draw = _choose if chains else _draw
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
    if count is not None:
        if histogram is not None:
            stop(f"--count {count}: --histogram gives the number of samples; leave one of the two out")
        return generator.classes_in_turn(count)
    names = generator.bundle.manifest.class_names
    if not generator.conditional:
        stop(f"--histogram: {generator.bundle.name} does not draw by class; give --count instead")
    parts = []
    for part in (histogram or "").split(","):
        name, _, number = part.rpartition("=")
        if name not in names or not number.isdigit():
            stop(f"--histogram {part!r}: give CLASS=COUNT with one of the classes {', '.join(names)}")
        parts.append(np.full(int(number), names.index(name), np.int64))
    labels = np.concatenate(parts)
    if not len(labels):
        stop(f"--histogram {histogram}: the counts add up to 0; ask for at least one sample")
    return labels


def _begin(out: Path, asked: dict[str, Any]) -> int:
    """How many samples are there already; a folder with other ones is refused."""
    path = out / PROVENANCE
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            stop(f"--out {out}: the folder has other files; give a new folder")
        out.mkdir(parents=True, exist_ok=True)
        _note(out, asked | {"finished": 0})
        return 0
    try:
        there = json.loads(path.read_text())
        finished = int(there.pop("finished"))
    except (ValueError, TypeError, KeyError, AttributeError):
        stop(f"--out {out}: its {PROVENANCE} cannot be read; give a new folder")
    different = sorted(name for name in asked if there.get(name) != asked[name])
    if different:
        was = ", ".join(f"{name} {there.get(name)!r}" for name in different)
        stop(f"--out {out}: the folder holds other samples ({was}); give a new folder, or the same options to go on")
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
