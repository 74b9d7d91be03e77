"""`duet generate`: many samples of a stored generator as files, for training and for looking at; no service needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

COUNT = 1000
SEED_LIMIT = 2**63  # as in services.inference.noise, which imports numpy


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
    out: Annotated[Path, typer.Option(help="Folder for the samples. It is made if there is none.")],
    count: Annotated[
        int | None,
        typer.Option(help="Samples in all, the same number of every class.", show_default=str(COUNT), min=1),
    ] = None,
    histogram: Annotated[
        str | None, typer.Option(metavar="CLASS=COUNT,...", help="Samples of each class, instead of --count.")
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="png: one folder for each class, as `duet train` reads them; npz: arrays.",
        ),
    ] = Form.png,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0, max=SEED_LIMIT - 1)] = 0,
    truncation: Annotated[
        float, typer.Option(help="Scale of the latents, above 0. Below 1 samples are more typical.", max=2)
    ] = 1.0,
    sampler: Annotated[
        Sampler,
        typer.Option(
            help="prior: one draw an image; metropolis-hastings: the GAN's discriminator chooses among 32 draws an "
            "image."
        ),
    ] = Sampler.prior,
) -> None:
    """Draw many samples into files, without a service.

    Sample i is the one that /generate gives for the same seed, class and i. After Ctrl-C the same command goes on where
    it stopped. The file provenance.json names the model, the seed and the options.
    """
    from services.commands.drawing import draw_files  # noqa: PLC0415

    draw_files(
        model,
        out,
        count=COUNT if count is None and histogram is None else count,
        histogram=histogram,
        form=form.value,
        seed=seed,
        truncation=truncation,
        chains=sampler is Sampler.metropolis_hastings,
    )
