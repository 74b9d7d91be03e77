"""The chapters of a scorer's report after its metrics: many anomalies, validity, defects, statistics, cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.arrays import Array, Images, evenly_spaced
from training.evaluation import figures
from training.evaluation.scorers.ablation import Ablation, Fusion, ablation, sum_of_squares
from training.evaluation.scorers.border_baseline import trivial
from training.evaluation.scorers.cost import cost
from training.evaluation.scorers.validity import validity
from training.evaluation.shifts.defects import defects
from training.evaluation.shifts.sets import OTHER, anomaly_sets
from training.evaluation.tables import table
from training.graphs.inference import score
from training.metrics.detection import ALPHA, RESAMPLES, detection_rate, separation
from training.metrics.localisation import LIMIT, aupro, pixel_auroc

Scored = Mapping[str, Array]  # outputs of the score graph by name

COUNT, FULL_COUNT = 200, 2000  # anomalies in a set
NORMALS = 1000  # test images, without --full
SHOWN = 3  # normal images beside one example of each set


def scorer_chapters(
    bundle: Bundle,
    dataset: Dataset,
    directory: Path,
    *,
    full: bool,
    other: Dataset | None = None,
    fusion: Fusion = sum_of_squares,
) -> list[str]:
    """Markdown, with pictures written into `directory`.

    Args:
        bundle: a scorer.
        dataset: data that fit it.
        directory: where the report is.
        full: ten times as many anomalies, every test image, an ablation of the statistics and the cost of the scorer:
            minutes, not seconds.
        other: data of the same image shape that are anomalous for the scorer; None for none.
        fusion: how the scorer combines its statistics into a score.
    """
    count = FULL_COUNT if full else COUNT
    test = dataset.test.images
    images = test if full else test[evenly_spaced(len(test), NORMALS)]
    sets = anomaly_sets(dataset, images, other, count)
    normal = score(bundle, images)
    shown = track(sets.items(), "scoring anomalies", console=Console(stderr=True), transient=True, disable=not full)
    scored = {name: score(bundle, made) for name, made in shown}
    measured = _ablation(bundle, normal, scored, fusion)
    scale = bundle.manifest.constants["residual_q99"]
    _examples(images, normal, sets, scored, scale, directory / "anomalies.png")
    figures.shares_found(
        {_spoken(name): outputs["p_value"] for name, outputs in scored.items()},
        normal["p_value"],
        directory / "shares_found.png",
    )
    written = [
        _anomalies(dataset, images, sets, normal, scored, measured, other),
        _validity(bundle, normal),
        _defects(images, count, scored),
    ]
    if not full:
        more = "`--full` uses every test image and ten times as many anomalies, and adds an ablation of the statistics "
        return [*written, f"{more}and the cost of the scorer."]
    if measured is not None:
        written.append(_statistics(measured, directory))
    return [*written, _cost(bundle, test)]


def _anomalies(
    dataset: Dataset,
    images: Images,
    sets: Mapping[str, Images],
    normal: Scored,
    scored: Mapping[str, Scored],
    measured: Ablation | None,
    other: Dataset | None,
) -> str:
    header = ["anomalies", "images", "AUROC [95 % interval]", f"found at p <= {ALPHA:.0%}", "best single statistic"]
    rows: list[tuple[str, ...]] = []
    areas, shares = [], []
    for name, outputs in scored.items():
        area, low, high = separation(normal["score"], outputs["score"])
        areas.append(area)
        shares.append(detection_rate(outputs["p_value"]))
        best = "{}: {:.4f}".format(*measured.best(name)) if measured else ""
        interval = f"{area:.4f} [{low:.4f}, {high:.4f}]"
        rows.append((_spoken(name), f"{len(sets[name]):,}", interval, f"{shares[-1]:.1%}", best))
    rows.append(("mean", "", f"{np.mean(areas):.4f}", f"{np.mean(shares):.1%}", ""))
    rows.append(("worst", "", f"{min(areas):.4f}", f"{min(shares):.1%}", ""))
    if measured is None:
        header, rows = header[:-1], [row[:-1] for row in rows]
    return _chapter(
        "Anomalies",
        f"Each set is compared with {len(images):,} normal test images. The anomalies are made from these images or "
        "come from other data (see `training/evaluation/shifts/`), and none is in the training data. Intervals are "
        f"from {RESAMPLES} bootstrap resamples.",
        table(header, rows),
        _cross(dataset, images, sets, other),
        "![One example of each set: the image, and below it the heat map.](anomalies.png)",
        "![The share of each set with p <= alpha; for normal images it is alpha.](shares_found.png)",
    )


def _cross(dataset: Dataset, images: Images, sets: Mapping[str, Images], other: Dataset | None) -> str:
    if other is None:
        name = OTHER.get(dataset.name)
        return (
            f"{name} is left out, because its files were not found; give their folder by `--data-dir`." if name else ""
        )
    two_sided, best = trivial(dataset.calibration.images, images, sets[other.name])
    return (
        "For comparison, a score without a model: the mean brightness of the two outermost pixels separates "
        f"{other.name} from {dataset.name} with an AUROC of {two_sided.auroc:.4f} (distance from the median), or "
        f"{best.auroc:.4f} (best of distance, higher and lower brightness)."
    )


def _validity(bundle: Bundle, normal: Scored) -> str:
    size = int(bundle.manifest.constants["calibration_size"])
    found_valid = validity(normal["p_value"], size)
    title = f"{len(normal['p_value']):,} normal test images, by p-values from {size:,} calibration images."
    return _chapter("Validity of the p-value", title, found_valid.markdown())


def _defects(images: Images, count: int, scored: Mapping[str, Scored]) -> str:
    made = defects(images[evenly_spaced(len(images), count)])  # the same defects as in the sets, with their masks
    rows = []
    for name, (_, mask) in made.items():
        if name not in scored:
            continue
        heat = scored[name]["residual"]
        figures = f"{pixel_auroc(heat, mask):.4f}", f"{aupro(heat, mask):.4f}"
        rows.append((name, f"{len(mask):,}", f"{mask.sum(axis=(1, 2)).mean():.1f}", *figures))
    return _chapter(
        "Localisation of defects",
        "Whether the heat map shows the pixels that a defect changed. Pixel AUROC is over all pixels of the damaged "
        f"images. AUPRO is the overlap with each region, up to a false-positive rate of {LIMIT:.0%} (Bergmann et al., "
        f"2020); a random map has about {LIMIT / 2:.2f}.",
        table(("defect", "images", "mean pixels of a defect", "pixel AUROC", f"AUPRO at {LIMIT:.0%}"), rows),
    )


def _statistics(measured: Ablation, directory: Path) -> str:
    names, sets = list(measured.alone), list(measured.fused)
    alone = np.array([[measured.alone[name][one] for name in names] for one in sets])
    without = np.array([[measured.without[name][one] - measured.fused[one] for name in names] for one in sets])
    panels = {"AUROC of each statistic alone": alone, "change of the AUROC without the statistic": without}
    figures.heat_tables(panels, [_spoken(one) for one in sets], names, directory / "ablation.png")
    return _chapter(
        "Ablation of the statistics",
        "AUROC of each statistic alone, and of all other statistics fused in the same way.",
        measured.markdown(),
        "![AUROC by set and statistic.](ablation.png)",
    )


def _cost(bundle: Bundle, images: Images) -> str:
    return _chapter(
        "Cost", "ONNX Runtime on one thread; the fastest of several rounds.", cost(bundle, images).markdown()
    )


def _ablation(bundle: Bundle, normal: Scored, scored: Mapping[str, Scored], fusion: Fusion) -> Ablation | None:
    """The ablation; None if the scorer does not output its statistics."""
    names = getattr(bundle.manifest, "statistics", ())
    if not names or "statistics" not in normal:
        return None
    sets = {name: outputs["statistics"] for name, outputs in scored.items()}
    return ablation(names, normal["statistics"], sets, fusion)


def _examples(
    images: Images, normal: Scored, sets: Mapping[str, Images], scored: Mapping[str, Scored], scale: float, path: Path
) -> None:
    """Heat maps of some normal images and of the first image of each set."""
    rows = evenly_spaced(len(images), SHOWN)

    def column(name: str) -> Array:
        return np.concatenate([normal[name][rows], *(outputs[name][:1] for outputs in scored.values())])

    figures.heat_maps(
        np.concatenate([images[rows], *(made[:1] for made in sets.values())]),
        column("residual"),
        column("p_value"),
        names=[f"normal {number + 1}" for number in range(len(rows))] + [_spoken(name) for name in sets],
        scale=scale,
        path=path,
        columns=8,
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _chapter(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])
