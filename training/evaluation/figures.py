"""Pictures of an evaluation: PNG files without dates or versions, so that equal models give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.arrays import Array

Images = NDArray[np.uint8]
Values = NDArray[np.float64]

COLUMNS = 4  # of panels


class Picture(NamedTuple):
    """A picture file of a report, and its caption."""

    file: str
    caption: str


matplotlib.rcParams["text.parse_math"] = False  # the name of a class may contain a dollar sign


def confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Rows are true classes, coloured by their share of the row; counts are written into up to 20 classes."""
    figure = _figure(5, 5)
    axes = figure.add_subplot()
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(class_names) <= 100:  # more names would overlap
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
    if len(class_names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if count > counts[row].sum() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=7)
    _save(figure, path)


def reliability_diagram(confidence: Values, accuracy: Values, images: NDArray[np.int64], path: Path) -> None:
    """Accuracy over confidence of each bin [B], and its number of images, on a logarithmic scale."""
    figure = _figure(4, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    above.plot(confidence, accuracy, "o-")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    below.bar(confidence, images, width=0.03)
    below.set(xlabel="confidence", ylabel="images", yscale="log")
    _save(figure, path)


def image_grid(images: Images, columns: int, path: Path, row_names: Sequence[str] = ()) -> None:
    """Images [N,C,H,W] in rows of `columns`, each row with its name where `row_names` are given."""
    rows = -(-len(images) // columns)
    _, channels, height, width = images.shape
    canvas = np.full((channels, rows * (height + 1) + 1, columns * (width + 1) + 1), 128, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        canvas[:, top : top + height, left : left + width] = image
    figure = _figure(columns * 0.5 + (1 if row_names else 0), rows * 0.5)
    axes = figure.add_subplot()
    _show(axes, canvas)
    if row_names:
        axes.axis("on")
        axes.set_xticks([])
        axes.set_yticks([row * (height + 1) + height / 2 for row in range(rows)], row_names, fontsize=8)
    _save(figure, path)


def captioned(images: Images, captions: Sequence[str], path: Path, columns: int = 10) -> None:
    """Images [N,C,H,W] in rows of `columns`, each under its caption."""
    rows = -(-len(images) // columns)
    figure = _figure(min(columns, len(images)) * 0.9, rows * 1.1)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes = figure.add_subplot(rows, min(columns, len(images)), index + 1)
        _show(axes, image)
        axes.set_title(caption, fontsize=6)
    _save(figure, path)


def curves(x: Array, panels: Mapping[str, Mapping[str, Array]], axis: str, path: Path) -> None:
    """One panel for each measure, with one line for each series; all share `x` [P], whose label is `axis`."""
    figure = _figure(4.5 * len(panels), 3.5)
    for index, (measure, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for name, y in lines.items():
            axes.plot(x, y, marker="." if len(x) < 10 else "", label=name)
        axes.set(xlabel=axis, ylabel=measure, ylim=(0, 1))
        axes.grid(alpha=0.3)
        if not index:
            axes.legend(fontsize=7)
    _save(figure, path)


def training_curves(records: Sequence[Mapping[str, Any]], path: Path) -> Picture:
    """One panel for each measure of the metrics log, over the epochs: of training, of validation, or of both."""
    epochs = np.array([record["epoch"] + 1 for record in records])
    names = list(dict.fromkeys(name for record in records for name in (*record["losses"], *record["validation"])))
    rows = -(-len(names) // COLUMNS)
    figure = _figure(4.0 * min(len(names), COLUMNS), 2.8 * rows)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, min(len(names), COLUMNS), index + 1)
        for kind, label in (("losses", "training"), ("validation", "validation")):
            y = np.array([record[kind].get(name, np.nan) for record in records])
            if not np.isnan(y).all():
                axes.plot(epochs, y, marker="." if len(y) < 10 else "", label=label)
        axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path)
    return Picture(path.name, "Training: losses and metrics after each epoch.")


def latent_map(means: Array, labels: NDArray[np.int64] | None, class_names: Sequence[str], path: Path) -> None:
    """Posterior means [N,D] by class, on their first two principal axes where D is not 2."""
    plane, axis_names = (means, "z{}") if means.shape[1] == 2 else (principal_axes(means), "principal axis {}")
    figure = _figure(6, 5)
    axes = figure.add_subplot()
    if labels is None:
        axes.scatter(plane[:, 0], plane[:, 1], s=3)
    else:
        for label, name in enumerate(class_names):
            x, y = plane[labels == label].T
            axes.scatter(x, y, s=3, color=f"C{label % 10}", label=name)
        axes.legend(markerscale=3, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel=axis_names.format(1), ylabel=axis_names.format(2))
    _save(figure, path)


def principal_axes(points: Array) -> Array:
    """Coordinates [N,2] of `points` [N,D] on the two axes of largest variance; the second is 0 where D is 1."""
    centred = points - points.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # The sign of an axis is arbitrary: its largest entry is made positive.
    axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))


def heat_maps(
    images: Images,
    residuals: Array,
    p_values: Array,
    *,
    names: Sequence[str],
    scale: float,
    path: Path,
    columns: int = 10,
) -> None:
    """Images [N,C,H,W] above their residuals [N,H,W], in rows of `columns`.

    Full red is `scale`, the 99 % quantile of normal pixels.
    """
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    figure = _figure(columns * 1.1, rows * 2.8)
    for index, (image, residual, p_value, name) in enumerate(zip(images, residuals, p_values, names, strict=True)):
        place = index // columns * 2 * columns + index % columns + 1
        axes = figure.add_subplot(2 * rows, columns, place)
        _show(axes, image)
        axes.set_title(f"{name}\np = {p_value:.2g}", fontsize=6)
        axes = figure.add_subplot(2 * rows, columns, place + columns)
        axes.imshow(residual, cmap="Reds", vmin=0, vmax=scale or 1)
        axes.axis("off")
    _save(figure, path)


def p_value_histogram(p_values: Array, path: Path) -> None:
    """A histogram of p-values; valid p-values of normal images are uniform, so every bar is near the line."""
    figure = _figure(5, 3)
    axes = figure.add_subplot()
    axes.hist(p_values, bins=20, range=(0, 1), density=True)
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="p-value", ylabel="density", xlim=(0, 1))
    _save(figure, path)


def shares_found(p_values: Mapping[str, Array], normal: Array, path: Path) -> None:
    """The share with p <= alpha over alpha, one line for each set; for valid p-values of normal images it is alpha."""
    figure = _figure(8, 5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    colours = matplotlib.colormaps["turbo"](np.linspace(0, 1, len(p_values)))
    for (name, values), colour, style in zip(p_values.items(), colours, cycle(("-", "--", ":")), strict=False):
        axes.ecdf(values, color=colour, linestyle=style, linewidth=1, label=name)
    axes.ecdf(normal, color="black", linewidth=2, label="normal")
    axes.set(xlabel="alpha", ylabel="share with p <= alpha", xscale="log", ylim=(0, 1))
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.set_xlim(float(normal.min()), 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def heat_tables(tables: Mapping[str, Array], rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Each of `tables` [R,C] by its title, its numbers coloured by size over its own range."""
    figure = _figure(1.5 + len(tables) * (0.6 * len(columns) + 1), 1.5 + 0.25 * len(rows))
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(panels, tables.items(), strict=True):
        axes.imshow(values, cmap="viridis", aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=6)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """A figure without pyplot, so that it need not be closed."""
    figure = Figure(figsize=(max(width, 1), max(height, 1)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Axes, image: Images) -> None:
    """One image [C,H,W]: grey if it has one channel, else its first three channels as colours."""
    axes.imshow(image[0] if len(image) < 3 else image[:3].transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    axes.axis("off")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100, metadata={"Software": None})
