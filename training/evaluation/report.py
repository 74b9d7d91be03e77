"""One report for every kind of bundle: metrics from its ONNX graphs on the test split, and pictures."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation import anomaly, calibration, classification, conformal, generation, pictures
from training.evaluation.chapters import chapters
from training.evaluation.runtime import spread
from training.evaluation.tables import metrics_table

Images = NDArray[np.uint8]

PLOTTED = 2000  # points of a latent map
GRID = 15  # images a side of the decoded latent plane
COLUMNS = 10
NORMALS = 4  # normal test images beside the anomalies of a heat map


class Picture(NamedTuple):
    file: str
    caption: str


class EvaluationError(ValueError):
    """A bundle cannot be evaluated on a data set; the message names both and the remedy."""


def evaluate(
    bundle: Bundle, dataset: Dataset, *, judge: Bundle | None = None, out: Path, full: bool = False
) -> dict[str, float]:
    """Measure a stored bundle on the test split of `dataset` and write report.md and pictures into `out`.

    A classifier's report has chapters on its mistakes and its robustness too.

    Args:
        bundle: what to measure.
        dataset: data of the same image shape and classes; another draw of the same data, for instance.
        judge: a classifier of the same classes that judges conditional samples; without one they go unjudged.
        out: the directory, made if need be.
        full: see `training.evaluation.chapters`; only for classifiers.

    Raises:
        EvaluationError: image shape or classes of the data set or of the judge differ from the bundle's.
    """
    out.mkdir(parents=True, exist_ok=True)
    metrics, drawn = assess(bundle, dataset, out, judge=judge)
    lines = [
        f"# {bundle.name} {bundle.version} on {dataset.name}",
        "",
        f"Test split: {dataset.splits['test']:,} images, data set digest `{dataset.digest[:12]}`"
        + (", the data that it was trained with." if dataset.digest == bundle.manifest.dataset.digest else "."),
        "",
        metrics_table(metrics),
        "",
        *(f"![{caption}]({file})\n\n{caption}\n" for file, caption in drawn),
    ]
    if bundle.manifest.task == "classification":
        lines += [f"{chapter}\n" for chapter in chapters(bundle, dataset, out, full=full)]
    (out / "report.md").write_text("\n".join(lines))
    return metrics


def assess(
    bundle: Bundle, dataset: Dataset, directory: Path, *, judge: Bundle | None = None
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics of `bundle` on the test split of `dataset`, and the pictures that were written into `directory`."""
    require_same(f"{bundle.name}", bundle, dataset)
    if judge is not None:
        require_same(f"judge {judge.name}", judge, dataset)
    if bundle.manifest.task == "classification":
        return _classifier(bundle, dataset, directory)
    if bundle.manifest.task == "anomaly":
        return _scorer(bundle, dataset, directory)
    if "encode" in bundle.manifest.graphs:
        return _vae(bundle, dataset, directory)
    return _gan(bundle, dataset, directory, judge)


def _classifier(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
    images, labels = dataset.test.images, dataset.test.labels
    if labels is None:
        raise EvaluationError(f"{bundle.name}: {dataset.name} has no labels to compare with; use labelled data")
    outputs = classification.predict(bundle, images)
    probabilities = outputs["probabilities"]
    counts = classification.confusion(probabilities, labels)
    pictures.confusion_matrix(counts, dataset.class_names, directory / "confusion_matrix.png")
    pictures.reliability_diagram(calibration.reliability(probabilities, labels), directory / "reliability.png")
    metrics = classification.metrics(probabilities, labels, dataset.class_names)
    if "prediction_set" in outputs:
        metrics |= conformal.set_metrics(outputs["prediction_set"], labels)
    if "temperature" in bundle.manifest.constants:
        metrics["temperature"] = bundle.manifest.constants["temperature"]
    return metrics, [
        Picture("confusion_matrix.png", "Confusion matrix: true classes in rows, predicted ones in columns."),
        Picture("reliability.png", "Reliability: where the probabilities hold, the points lie on the line; below it, "
                "how many images have each confidence."),
    ]  # fmt: skip


def _vae(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
    images, labels = dataset.test.images, dataset.test.labels
    mean_image = dataset.train.images.mean(axis=0, dtype=np.float64) / 255
    metrics = generation.vae_metrics(bundle, images, mean_image)
    plotted = spread(len(images), PLOTTED)
    means = generation.encode(bundle, images[plotted])[0]
    pictures.latent_map(
        means, None if labels is None else labels[plotted], dataset.class_names, directory / "latent_map.png"
    )
    shown = images[spread(len(images), COLUMNS)]
    decoded = generation.decode(bundle, generation.encode(bundle, shown)[0])["images"]
    pictures.image_grid(
        np.concatenate([shown, decoded]), len(shown), directory / "reconstructions.png", ["original", "decoded"]
    )
    samples = generation.sample(bundle, COLUMNS**2)
    pictures.image_grid(samples, COLUMNS, directory / "samples.png")
    drawn = [
        Picture("samples.png", "Samples decoded from standard normal latents."),
        Picture("reconstructions.png", "Test images, and what is decoded from their posterior means."),
        Picture("latent_map.png", "Posterior means of test images."),
    ]
    if means.shape[1] == 2:
        quantiles = [NormalDist().inv_cdf((i + 0.5) / GRID) for i in range(GRID)]
        plane = np.array([(x, y) for y in reversed(quantiles) for x in quantiles], dtype=np.float32)
        grid = generation.decode(bundle, plane)["images"]
        pictures.image_grid(grid, GRID, directory / "latent_grid.png")
        drawn.append(Picture("latent_grid.png", "The latent plane, decoded at equal steps of the prior's quantiles."))
    return metrics, drawn


def _gan(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    rows = np.repeat(np.arange(len(dataset.class_names)), COLUMNS) if dataset.class_names else None
    samples = generation.sample(bundle, COLUMNS**2 if rows is None else len(rows), rows)
    pictures.image_grid(samples, COLUMNS, directory / "samples.png", dataset.class_names)
    metrics = generation.gan_metrics(bundle, dataset.test.images, dataset.test.labels, judge)
    return metrics, [Picture("samples.png", "Samples, a row for each class." if dataset.class_names else "Samples.")]


def _scorer(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
    images = dataset.test.images
    outputs = anomaly.score(bundle, images)
    metrics = anomaly.metrics(bundle, images, outputs["p_value"], outputs["score"])
    normals = images[spread(len(images), NORMALS)]
    anomalies = anomaly.simple_anomalies(normals[:1])
    shown = np.concatenate([normals, *anomalies.values()])
    scored = anomaly.score(bundle, shown)
    pictures.heat_maps(
        shown,
        scored["residual"],
        scored["p_value"],
        names=[f"normal {i + 1}" for i in range(len(normals))] + [name.replace("_", " ") for name in anomalies],
        scale=bundle.manifest.constants["residual_q99"],
        path=directory / "heat_maps.png",
    )
    pictures.p_value_histogram(outputs["p_value"], directory / "p_values.png")
    return metrics, [
        Picture("heat_maps.png", "Residuals of test images and of anomalies made from the first of them; full red is "
                "what 1 % of the pixels of normal images exceed."),
        Picture("p_values.png", "p-values of test images; uniform where the scorer is valid."),
    ]  # fmt: skip


def require_same(name: str, bundle: Bundle, dataset: Dataset) -> None:
    """Refuse data of another image shape or of other classes than the bundle's; `name` is for the message.

    Raises:
        EvaluationError: with what each has.
    """
    manifest = bundle.manifest
    if dataset.image_shape != manifest.image.shape:
        raise EvaluationError(
            f"{name}: takes images of shape {manifest.image.shape}, but {dataset.name} has {dataset.image_shape}; "
            f"use data like {manifest.dataset.name}"
        )
    if dataset.class_names != manifest.class_names:
        raise EvaluationError(
            f"{name}: knows the classes {_listed(manifest.class_names)}, but {dataset.name} has "
            f"{_listed(dataset.class_names)}; use data like {manifest.dataset.name}"
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
