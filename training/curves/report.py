"""A learning curve as a table, a figure and what the one says about the other."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.curves.curve import RUNS, SUBSETS, TIMED, Cell, Curve
from training.curves.methods import SYNTHETIC
from training.evaluation.tables import table

PLAIN = "CNN"
RIVAL = "SVM"


def report(curve: Curve, directory: Path) -> Path:
    """Write `learning_curve_<dataset>.md` and `.png` into `directory`; the path of the first."""
    stem = f"learning_curve_{curve.header['dataset']}"
    draw(curve, directory / f"{stem}.png")
    path = directory / f"{stem}.md"
    path.write_text(text(curve, f"{stem}.png"))
    return path


def text(curve: Curve, figure: str) -> str:
    """The report in Markdown; `figure` is the name of the picture's file."""
    name, source, tested = (curve.header[key] for key in ("dataset", "source", "test"))
    columns, rows = _sizes(curve), _methods(curve)
    head = ("method", *(f"{size:,}" for size in columns))
    accuracies = [(row, *(_accuracy(curve, row, size) for size in columns)) for row in rows]
    gains = [(row, *(_gain(curve, row, size) for size in columns)) for row in rows if row != PLAIN]
    seconds = [(row, *(_seconds(curve, row, size) for size in columns)) for row in rows]
    served = ("method", "KB", *(f"µs an image at batch {size}" for size in TIMED))
    chance = 200 * sqrt(0.95 * 0.05 / tested)
    started = "left out, for no `--from` named a classifier of other data."
    if source:
        started = f"starts from `{source}`, and all layers go on learning; its own training is not counted."
    return f"""# {name}: what a label is worth

![Test accuracy over labels a class, by method.]({figure})

## Test accuracy, %

By labels a class; mean ± standard deviation over {SUBSETS} subsets, the same for every method. The largest mean is
bold, which does not say that it is larger by more than chance: see below.

{table(head, accuracies)}

## What each is worth

Points of accuracy over the plain CNN, on the same subsets; the row `{RIVAL}` answers whether a CNN is worth it.

{table(head, gains)}

## CPU seconds of a training

{table(head, seconds)}

## The served graph

Of the models from {max(columns):,} labels a class, in ONNX Runtime on one thread, the fastest of {RUNS} runs. All CNNs
have the same graph but for the weights, so that their rows show how far the times can be trusted; an SVM keeps training
images and grows.

{table(served, [_served(curve, row) for row in rows])}

## How it was measured

- A larger subset has the smaller ones in it; subsets of most of the training split are nearly the same images, so that
  their deviation says little.
- All are tested on the {tested:,} images of the test split, whose choice is no part of the deviations: of a model that
  is right on 95 % of all images, {chance:.1f} points either way are chance (two standard errors).
- Every setting is the same for all numbers of labels, and none was tried on a test split; the learning rate of what is
  transferred was chosen, of three, on MNIST's validation split. Networks train for a number of steps that is fixed
  beforehand (`steps` in `training/curves/methods.py`).
- `CNN, augmented`: random shifts, turns and scalings of every batch, or what else keeps the classes of {name}.
- `CNN, synthetic`: half of every batch is drawn from {SYNTHETIC:,} samples of a GAN that was trained on the same few
  images, and its time counts.
- `CNN, transferred`: {started}

`duet learning-curve --dataset {name}{f" --from {source}" if source else ""}` makes this report; data set digest
`{curve.header["digest"][:12]}`.
"""


def draw(curve: Curve, path: Path) -> None:
    """Mean accuracy over labels a class, with bars of one standard deviation."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in _methods(curve):
        points = [(size, _accuracies(curve, method, size)) for size in _sizes(curve)]
        points = [(size, values) for size, values in points if values]
        axes.errorbar(
            [size for size, _ in points],
            [100 * mean(values) for _, values in points],
            [100 * _spread(values) for _, values in points],
            marker="o",
            markersize=3,
            capsize=2,
            linewidth=1,
            label=method,
        )
    axes.set_xscale("log")
    axes.set_xticks(_sizes(curve), [f"{size:,}" for size in _sizes(curve)])
    axes.minorticks_off()
    axes.set(xlabel="labels a class", ylabel="test accuracy, %", title=curve.header["dataset"])
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _sizes(curve: Curve) -> list[int]:
    return sorted({cell.labels for cell in curve.cells})


def _methods(curve: Curve) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in curve.cells))


def _of(curve: Curve, method: str, size: int) -> list[Cell]:
    found = [cell for cell in curve.cells if (cell.method, cell.labels) == (method, size)]
    return sorted(found, key=lambda cell: cell.seed)


def _accuracies(curve: Curve, method: str, size: int) -> list[float]:
    return [cell.accuracy for cell in _of(curve, method, size)]


def _accuracy(curve: Curve, method: str, size: int) -> str:
    values = _accuracies(curve, method, size)
    if not values:
        return ""
    best = max(mean(_accuracies(curve, other, size) or [0.0]) for other in _methods(curve))
    figure = f"{100 * mean(values):.2f}"
    return f"{f'**{figure}**' if mean(values) == best else figure} ± {100 * _spread(values):.2f}"


def _gain(curve: Curve, method: str, size: int) -> str:
    plain = {cell.seed: cell.accuracy for cell in _of(curve, PLAIN, size)}
    gains = [cell.accuracy - plain[cell.seed] for cell in _of(curve, method, size) if cell.seed in plain]
    return f"{100 * mean(gains):+.2f} ± {100 * _spread(gains):.2f}" if gains else ""


def _seconds(curve: Curve, method: str, size: int) -> str:
    values = [cell.cpu_seconds for cell in _of(curve, method, size)]
    return f"{median(values):.1f}" if values else ""


def _served(curve: Curve, method: str) -> tuple[str, ...]:
    exported = [cell for cell in curve.cells if cell.method == method and cell.graph_bytes is not None]
    if not exported:
        return (method, "", *("" for _ in TIMED))
    last = max(exported, key=lambda cell: cell.labels)
    times = (f"{last.microseconds[str(size)]:.0f}" for size in TIMED)
    return (method, f"{(last.graph_bytes or 0) / 1000:,.0f}", *times)


def _spread(values: Iterable[float]) -> float:
    values = list(values)
    return stdev(values) if len(values) > 1 else 0.0
