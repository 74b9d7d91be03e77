"""The `duet` command: the one place that puts the two halves together. Only commands that train import torch."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from services.commands import cache, generate, models, predict, serve
from services.commands.examples import examples
from services.commands.stop import Commands
from services.commands.version import show_version
from training.commands import compare, cross_validate, evaluate, learning_curve, quantize, train, trials

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    epilog=examples(
        "duet train --dataset digits --recipe demo",
        "duet models list",
        "duet serve",
        "duet predict docs/pictures/digit.png",
    ),
)


@app.callback()
def duet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the versions for a bug report."),
    ] = False,
) -> None:
    """Train image models, serve them over HTTP, and send them images."""


SERVE, TRAIN, STORE = "Serve and ask", "Train and judge", "Store and cache"

app.command(rich_help_panel=SERVE, epilog=examples("duet serve", "duet serve classification --port 3001"))(serve.serve)
app.command(
    rich_help_panel=SERVE,
    epilog=examples("duet predict docs/pictures/digit.png", "duet predict docs/pictures --task score --json"),
)(predict.predict)
app.command(
    rich_help_panel=SERVE,
    epilog=examples(
        "duet generate --model digits-gan --count 200 --out photos",
        "duet generate --model digits-gan --histogram 3=20,8=20 --format npz --out drawn",
    ),
)(generate.generate)

app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "duet train --dataset digits --recipe demo",
        "duet train --dataset folder:photos --recipe classic --image-size 32 --network cnn",
    ),
)(train.train)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples("duet evaluate digits-cnn", "duet evaluate digits-gan --judge digits-cnn --out runs/gan"),
)(evaluate.evaluate)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "duet compare digits-cnn digits-cnn-int8", "duet compare digits-cnn-int8 digits-cnn --dataset digits"
    ),
)(compare.compare)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples("duet quantize digits-cnn", "duet quantize digits-cnn --dataset digits --out runs/smaller"),
)(quantize.quantize)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples("duet cross-validate", "duet cross-validate --dataset digits --folds 3 --seed 1"),
)(cross_validate.cross_validate)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples("duet learning-curve", "duet learning-curve --dataset digits --out runs/labels"),
)(learning_curve.learning_curve)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples("duet trials one-class --dataset digits", "duet trials held-out --dataset digits"),
)(trials.trials)

app.add_typer(models.app, name="models", rich_help_panel=STORE)
app.add_typer(cache.app, name="cache", rich_help_panel=STORE)


def main() -> None:
    """Entry point of the console command."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `duet models list | head` ends quietly
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    sys.exit(app())
