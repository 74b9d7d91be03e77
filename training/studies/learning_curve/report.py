"""The report of a learning curve: tables and a figure."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.evaluation.tables import table
from training.studies.learning_curve.methods import SYNTHETIC
from training.studies.learning_curve.run import RUNS, SUBSETS, TIMED, Cell, Curve

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
    served = ("method", "KB", *(f"µs per image at batch {size}" for size in TIMED))
    chance = 200 * sqrt(0.95 * 0.05 / tested)
    started = "left out, because no `--from` named a classifier of other data."
    if source:
        started = f"starts from `{source}`, and all layers are trained; the time to train `{source}` does not count."
    return f"""# {name}: accuracy by number of labels

![Test accuracy over labels per class, by method.]({figure})

## Test accuracy, %

By labels per class; mean ± standard deviation over {SUBSETS} subsets, the same for every method. The largest mean is
bold; the difference may still be chance (see below).

{table(head, accuracies)}

## Gain over the plain CNN

Percentage points of accuracy more than the plain CNN, on the same subsets. The row `{RIVAL}` shows whether a CNN is
better than a support vector machine.

{table(head, gains)}

## CPU seconds of a training

{table(head, seconds)}

## The served graph

Models trained with {max(columns):,} labels per class, in ONNX Runtime on one thread, the fastest of {RUNS} runs. All
CNNs have the same graph with other weights, so the differences between their rows show the error of the times. An SVM
stores training images, so it grows with their number.

{table(served, [_served(curve, row) for row in rows])}

## How it was measured

- A larger subset contains the smaller subsets. Subsets that contain most of the training split have nearly the same
  images, so their deviation is too small.
- All models are tested on the {tested:,} images of the test split. The deviations do not include the choice of these
  images: for an accuracy of 95 %, {chance:.1f} points either way are chance (two standard errors).
- Every setting is the same for all numbers of labels, and none was chosen on a test split. The learning rate of the
  transferred CNNs was chosen among three on MNIST's validation split. Networks train for a fixed number of steps
  (`steps` in `training/studies/learning_curve/methods.py`).
- `CNN, augmented`: random shifts, rotations and scalings of every batch, as far as they keep the classes of {name}.
- `CNN, synthetic`: half of every batch is drawn from {SYNTHETIC:,} samples of a GAN that is trained on the same few
  images; the time to train the GAN counts.
- `CNN, transferred`: {started}

`duet learning-curve --dataset {name}{f" --from {source}" if source else ""}` makes this report; data set digest
`{curve.header["digest"][:12]}`.
"""


def draw(curve: Curve, path: Path) -> None:
    """Mean accuracy over labels per class, with bars of one standard deviation."""
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
    axes.set(xlabel="labels per class", ylabel="test accuracy, %", title=curve.header["dataset"])
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
