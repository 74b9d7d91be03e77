"""One picture: predictions beside measurements, replicas by load, the spike, and what moves the number of replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.capacity.rows import Row
from loadtests.capacity.runs import Run, Seen

mpl.use("Agg")


def draw(
    compared: Sequence[tuple[Run, Seen, Seen]], rows: Sequence[Row], moved: Mapping[str, tuple[int, int]]
) -> Figure:
    """Measured and simulated runs, the scale table, and the sensitivities."""
    picture = Figure(figsize=(13, 10), layout="constrained")
    ((latency, scale), (spike, tornado)) = picture.subplots(2, 2)
    _latency(latency, compared)
    _scale(scale, rows)
    _spike(spike, rows)
    _tornado(tornado, moved)
    return picture


def _latency(axes: Axes, compared: Sequence[tuple[Run, Seen, Seen]]) -> None:
    places = range(len(compared))
    for name, color in (("p50_ms", "tab:blue"), ("p99_ms", "tab:orange")):
        measured = [getattr(seen, name) for _, seen, _ in compared]
        simulated = [getattr(seen, name) for _, _, seen in compared]
        label = name.removesuffix("_ms")
        axes.plot(measured, places, "o", color=color, label=f"{label}, measured")
        axes.plot(simulated, places, "x", color=color, label=f"{label}, simulated")
    axes.set(xscale="log", xlabel="ms from due to answered", title="nothing was fitted to these runs")
    axes.set_yticks(list(places), [run.name for run, _, _ in compared])
    axes.invert_yaxis()
    axes.legend()


def _scale(axes: Axes, rows: Sequence[Row]) -> None:
    low = [row.replicas - row.low for row in rows]
    high = [row.high - row.replicas for row in rows]
    x, y = [row.rate for row in rows], [row.replicas for row in rows]
    axes.errorbar(x, y, yerr=[low, high], fmt="--", color="tab:grey", capsize=4)
    for status, marker in (("measured", "o"), ("extrapolated", "^")):
        chosen = [row for row in rows if row.status == status]
        axes.plot([row.rate for row in chosen], [row.replicas for row in chosen], marker, label=status)
    axes.set(xscale="log", yscale="log", xlabel="requests per second", ylabel="replicas", title="replicas by load")
    axes.legend()


def _spike(axes: Axes, rows: Sequence[Row]) -> None:
    for name in rows[0].spikes:
        axes.plot([row.rate for row in rows], [max(row.spikes[name].seconds) for row in rows], "o-", label=name)
    axes.set(
        xscale="log",
        xlabel="requests per second before the spike",
        ylabel="seconds, worst seed",
        title="until the objectives are met again",
        ylim=0,
    )
    axes.legend()


def _tornado(axes: Axes, moved: Mapping[str, tuple[int, int]]) -> None:
    names = sorted(moved, key=lambda name: abs(moved[name][1] - moved[name][0]))
    for place, name in enumerate(names):
        low, high = moved[name]
        axes.plot([low, high], [place, place], "-", color="tab:grey")
        axes.plot([low], [place], "<", color="tab:blue")
        axes.plot([high], [place], ">", color="tab:orange")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="replicas with the input 20 % lower (blue) and higher (orange)", title="sensitivity")
