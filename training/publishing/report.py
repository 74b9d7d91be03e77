"""One report for every kind of bundle: metrics from its ONNX graphs on the test split, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.arrays import Array, evenly_spaced
from training.data.seen import may_have_seen
from training.evaluation import figures
from training.evaluation.classifiers.sections import chapters
from training.evaluation.compatibility import EvaluationError, require_same
from training.evaluation.figures import Picture
from training.evaluation.generators import assess as generators
from training.evaluation.generators import sample_metrics
from training.evaluation.generators.elbo import has_likelihood
from training.evaluation.generators.likelihood import likelihood_metrics
from training.evaluation.generators.samplers import samplers_metrics
from training.evaluation.scorers import assess as anomaly
from training.evaluation.scorers.assess import NORMALS
from training.evaluation.scorers.sections import scorer_chapters
from training.evaluation.shifts.sets import other_data, simple_anomalies
from training.evaluation.tables import metrics_table
from training.graphs.inference import predict, score
from training.metrics import calibration, classification, conformal
from training.scorer.weights import weighted

DRAWS = 1000  # of z an image, for the likelihood of every test image


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    *,
    judge: Bundle | None = None,
    out: Path,
    full: bool = False,
    data_dir: Path | None = None,
) -> dict[str, float]:
    """Measure a stored bundle on the test split of `dataset` and write report.md and pictures into `out`.

    A classifier's report has chapters on its mistakes and its robustness too, a scorer's on many kinds of anomalies.

    Args:
        bundle: what to measure.
        dataset: data of the same image shape and classes.
        judge: a classifier of the same classes that judges conditional samples; without it they are not judged.
        out: the directory, created if it does not exist.
        full: for classifiers, see `training.evaluation.classifiers.sections`; for scorers, see
            `training.evaluation.scorers.sections`; for a conditional VAE, bound the likelihood of every test image
            with 1,000 draws; for a GAN, compare its samplers.
        data_dir: folder of MNIST and Fashion-MNIST, each of which is anomalous for a scorer of the other.

    Raises:
        EvaluationError: image shape or classes of the data set or of the judge differ from the bundle's.
    """
    out.mkdir(parents=True, exist_ok=True)
    metrics, drawn = assess(bundle, dataset, out, judge=judge)
    if full and bundle.manifest.network == "cvae" and has_likelihood(bundle):
        metrics |= likelihood_metrics(bundle, dataset.test.images, samples=DRAWS, progress="bounding the likelihood")
    if full and judge is not None and bundle.manifest.network == "gan":
        metrics |= samplers_metrics(bundle, dataset, judge, progress="driving chains")
    why = may_have_seen(bundle, dataset)
    lines = [
        f"# {bundle.name} {bundle.version} on {dataset.name}",
        "",
        f"Test split: {dataset.splits['test']:,} images, data set digest `{dataset.digest[:12]}`"
        + (", the same as in training." if dataset.digest == bundle.manifest.dataset.digest else ".")
        + (f" {bundle.name}: {why}. If it has seen test images, the metrics are too good." if why else ""),
        "",
        metrics_table(metrics),
        "",
        *(f"![{caption}]({file})\n\n{caption}\n" for file, caption in drawn),
    ]
    if bundle.manifest.task == "classification":
        lines += [f"{chapter}\n" for chapter in chapters(bundle, dataset, out, full=full)]
    if bundle.manifest.task == "anomaly":

        def fusion(statistics: Array) -> Array:
            return weighted(statistics, bundle.manifest.statistics)

        other = other_data(dataset, data_dir)
        written = scorer_chapters(bundle, dataset, out, full=full, other=other, fusion=fusion)
        lines += [f"{chapter}\n" for chapter in written]
    (out / "report.md").write_text("\n".join(lines))
    return metrics


def add_chapter(out: Path, title: str, metrics: Mapping[str, float]) -> None:
    """Append metrics to the report in `out` that need more than the bundle's graphs."""
    with (out / "report.md").open("a") as report:
        report.write(f"\n## {title}\n\n{metrics_table(metrics)}\n")


def validate(bundle: Bundle, dataset: Dataset, *, judge: Bundle | None = None) -> dict[str, float]:
    """Metrics of `bundle` on the validation split of `dataset`: what its gates are decided on.

    Whoever trains again after a failed gate selects by these figures, so they are not those of the test split. Some
    are optimistic. The best epoch was chosen by the validation error, bound or Fréchet distance. The ranks of a
    scorer's statistics were fitted on these images. NLL and calibration error are those after the temperature was
    fitted on them, and no gate uses these two; a temperature does not change the predicted class.

    Raises:
        EvaluationError: image shape or classes of the data set or of the judge differ from the bundle's.
    """
    _require_fit(bundle, dataset, judge)
    training, validation = dataset.train, dataset.validation
    if bundle.manifest.task == "classification":
        return _of_classifier(bundle, validation, predict(bundle, validation.images))
    if bundle.manifest.task == "anomaly":
        outputs = score(bundle, validation.images)
        return anomaly.metrics(bundle, validation.images, outputs["p_value"], outputs["score"])
    if bundle.manifest.network == "cvae":
        return generators.conditional_vae_metrics(bundle, training, validation, judge)
    if "encode" in bundle.manifest.graphs:
        return generators.vae_metrics(bundle, training, validation, judge)
    return sample_metrics.gan_metrics(bundle, training, validation, judge)


def assess(
    bundle: Bundle, dataset: Dataset, directory: Path, *, judge: Bundle | None = None
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics of `bundle` on the test split of `dataset`, and the pictures that were written into `directory`."""
    _require_fit(bundle, dataset, judge)
    if bundle.manifest.task == "classification":
        return _classifier(bundle, dataset, directory)
    if bundle.manifest.task == "anomaly":
        return _scorer(bundle, dataset, directory)
    if bundle.manifest.network == "cvae":
        return generators.conditional_vae(bundle, dataset, directory, judge)
    if "encode" in bundle.manifest.graphs:
        return generators.vae(bundle, dataset, directory, judge)
    return generators.gan(bundle, dataset, directory, judge)


def _classifier(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
    outputs = predict(bundle, dataset.test.images)
    metrics = _of_classifier(bundle, dataset.test, outputs)
    probabilities, labels = outputs["probabilities"], _labels(bundle, dataset.test)
    counts = classification.confusion(probabilities, labels)
    figures.confusion_matrix(counts, dataset.class_names, directory / "confusion_matrix.png")
    figures.reliability_diagram(calibration.reliability(probabilities, labels), directory / "reliability.png")
    return metrics, [
        Picture("confusion_matrix.png", "Confusion matrix: true classes in rows, predicted classes in columns."),
        Picture("reliability.png", "Reliability: accuracy over confidence. Calibrated probabilities lie on the line. "
        "The lower panel shows the number of images at each confidence."),
    ]  # fmt: skip


def _of_classifier(bundle: Bundle, split: Split, outputs: Mapping[str, Array]) -> dict[str, float]:
    """The metrics of the graph's outputs for a split."""
    labels = _labels(bundle, split)
    metrics = classification.metrics(outputs["probabilities"], labels, bundle.manifest.class_names)
    if "prediction_set" in outputs:
        metrics |= conformal.set_metrics(outputs["prediction_set"], labels)
    if "temperature" in bundle.manifest.constants:
        metrics["temperature"] = bundle.manifest.constants["temperature"]
    return metrics


def _labels(bundle: Bundle, split: Split) -> NDArray[np.int64]:
    if split.labels is None:
        raise EvaluationError(f"{bundle.name}: the data have no labels to compare with; give labelled data")
    return split.labels


def _scorer(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
    images = dataset.test.images
    outputs = score(bundle, images)
    metrics = anomaly.metrics(bundle, images, outputs["p_value"], outputs["score"])
    normals = images[evenly_spaced(len(images), NORMALS)]
    anomalies = simple_anomalies(normals[:1])
    shown = np.concatenate([normals, *anomalies.values()])
    scored = score(bundle, shown)
    figures.heat_maps(
        shown,
        scored["residual"],
        scored["p_value"],
        names=[f"normal {i + 1}" for i in range(len(normals))] + [name.replace("_", " ") for name in anomalies],
        scale=bundle.manifest.constants["residual_q99"],
        path=directory / "heat_maps.png",
    )
    figures.p_value_histogram(outputs["p_value"], directory / "p_values.png")
    return metrics, [
        Picture("heat_maps.png", "Heat maps of test images, and of anomalies made from the first test image; 1 % of "
        "the pixels of normal images exceed full red."),
        Picture("p_values.png", "p-values of test images; for a valid scorer they are uniform."),
    ]  # fmt: skip


def _require_fit(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> None:
    require_same(bundle.name, bundle, dataset)
    if judge is not None:
        require_same(f"judge {judge.name}", judge, dataset)
