"""Trials as a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.evaluation.tables import table
from training.studies.anomaly_trials.held_out import HELD_OUT, KNOWN, SEED
from training.studies.anomaly_trials.one_class import ONE_CLASS
from training.studies.anomaly_trials.run import Trial, Trials

PROTOCOLS = {
    ONE_CLASS: "Each class in turn is normal. A scorer is trained on the images of this class only, without labels, "
    "and must separate its test images from those of all other classes (Ruff et al., ICML 2018).",
    HELD_OUT: f"A scorer is trained on {KNOWN:.0%} of the classes with their labels, and must separate their test "
    f"images from those of the other classes (Neal et al., ECCV 2018). Classes are drawn with seed {SEED}.",
}
# Mean AUROC as published, by data set; none of them gives a p-value.
PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    ONE_CLASS: {
        "mnist": {
            "Deep SVDD (Ruff et al., ICML 2018)": 0.948,
            "OCGAN (Perera et al., CVPR 2019)": 0.975,
            "GeoTrans (Golan, El-Yaniv, NeurIPS 2018)": 0.980,
            "ARNet (Fei et al., IEEE TMM 2020)": 0.983,
        },
        "fashion-mnist": {
            "GeoTrans (Golan, El-Yaniv, NeurIPS 2018)": 0.935,
            "ARNet (Fei et al., IEEE TMM 2020)": 0.939,
        },
    }
}


def trials_report(trials: Trials, directory: Path) -> Path:
    """Write `one_class_<dataset>.md` or `held_out_classes_<dataset>.md` and its .png; the path of the first."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{trials.header['protocol']}_{trials.header['dataset']}".replace("-", "_").replace(" ", "_")
    draw(trials, directory / f"{stem}.png")
    path = directory / f"{stem}.md"
    path.write_text(text(trials, f"{stem}.png"))
    return path


def text(trials: Trials, figure: str) -> str:
    """The report in Markdown; `figure` is the name of the picture's file."""
    protocol, name, method, digest = (trials.header[key] for key in ("protocol", "dataset", "method", "digest"))
    header = (
        "task",
        "normal",
        "anomalous",
        "AUROC [95 % interval]",
        "found at p <= 1 %",
        "false alarms at 1 %",
        "false alarms at 5 %",
    )
    rows = [
        (
            trial.name,
            f"{trial.normal:,}",
            f"{trial.anomalous:,}",
            f"{trial.auroc:.4f} [{trial.low:.4f}, {trial.high:.4f}]",
            *(f"{share:.2%}" for share in (trial.found_1, trial.false_1, trial.false_5)),
        )
        for trial in trials.done
    ]
    areas = [trial.auroc for trial in trials.done]
    spread = f" ± {stdev(areas):.4f}" if len(areas) > 1 else ""
    shares = (f"{mean(getattr(trial, key) for trial in trials.done):.2%}" for key in ("found_1", "false_1", "false_5"))
    rows.append(("mean ± standard deviation", "", "", f"**{mean(areas):.4f}**{spread}", *shares))
    published = PUBLISHED.get(protocol, {}).get(name, {})
    compared = "\n## Published\n\nMean AUROC as published by the authors, or in later comparisons.\n\n" + table(
        ("method", "AUROC"), [(other, f"{area:.3f}") for other, area in published.items()]
    )
    return f"""# {name}, {protocol}: {method}

{PROTOCOLS[protocol]}

![AUROC of each task, with its 95 % interval.]({figure})

{table(header, rows)}

A training took {mean(trial.seconds for trial in trials.done):.0f} s on average. Nothing was selected on test images.
Intervals are bootstrap intervals over test images, for one training each. Data set digest `{digest[:12]}`.
{compared if published else ""}"""


def draw(trials: Trials, path: Path) -> None:
    """AUROC of each trial with its interval, and the mean of all."""
    figure = Figure(figsize=(7, 0.9 + 0.3 * len(trials.done)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row, trial in enumerate(trials.done):
        axes.errorbar(trial.auroc, row, xerr=_reach(trial), fmt="o", markersize=4, capsize=2, color="C0")
    axes.axvline(mean(trial.auroc for trial in trials.done), color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(trials.done)), [trial.name for trial in trials.done], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="AUROC; dashed: the mean")
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _reach(trial: Trial) -> list[list[float]]:
    """Of the error bar, to the left and to the right."""
    return [[max(0.0, trial.auroc - trial.low)], [max(0.0, trial.high - trial.auroc)]]
