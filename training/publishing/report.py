"""One report for every kind of bundle: metrics from its ONNX graphs on the test split, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.seen import may_have_seen
from training.evaluation.compatibility import require_same
from training.evaluation.figures import Picture
from training.evaluation.tables import metrics_table
from training.publishing.kind import Product


def evaluate(
    product: Product,
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
        product: what `bundle` is.
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
    metrics, drawn = assess(product, bundle, dataset, out, judge=judge)
    if full:
        metrics |= product.full_metrics(bundle, dataset, judge)
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
    lines += [f"{chapter}\n" for chapter in product.chapters(bundle, dataset, out, full=full, data_dir=data_dir)]
    (out / "report.md").write_text("\n".join(lines))
    return metrics


def add_chapter(out: Path, title: str, metrics: Mapping[str, float]) -> None:
    """Append metrics to the report in `out` that need more than the bundle's graphs."""
    with (out / "report.md").open("a") as report:
        report.write(f"\n## {title}\n\n{metrics_table(metrics)}\n")


def validate(product: Product, bundle: Bundle, dataset: Dataset, *, judge: Bundle | None = None) -> dict[str, float]:
    """Metrics of `bundle` on the validation split of `dataset`: what its gates are decided on.

    Whoever trains again after a failed gate selects by these figures, so they are not those of the test split. Some
    are optimistic. The best epoch was chosen by the validation error, bound or Fréchet distance. The ranks of a
    scorer's statistics were fitted on these images. NLL and calibration error are those after the temperature was
    fitted on them, and no gate uses these two; a temperature does not change the predicted class.

    Raises:
        EvaluationError: image shape or classes of the data set or of the judge differ from the bundle's.
    """
    _require_fit(bundle, dataset, judge)
    return product.validate(bundle, dataset, judge)


def assess(
    product: Product, bundle: Bundle, dataset: Dataset, directory: Path, *, judge: Bundle | None = None
) -> tuple[dict[str, float], list[Picture]]:
    """Metrics of `bundle` on the test split of `dataset`, and the pictures that were written into `directory`."""
    _require_fit(bundle, dataset, judge)
    return product.assess(bundle, dataset, directory, judge)


def _require_fit(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> None:
    require_same(bundle.name, bundle, dataset)
    if judge is not None:
        require_same(f"judge {judge.name}", judge, dataset)
