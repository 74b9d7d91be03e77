"""The graphs of a generator, and the metrics of its samples."""

from __future__ import annotations

from services.inference.bundle import Bundle
from training.data import Split
from training.data.arrays import evenly_spaced
from training.graphs.inference import balanced_labels, sample
from training.metrics.samples import relative_diversity

MINIMUM, SAMPLES = 1000, 10_000  # least and most samples to judge
RATIOS = ("inception_score", "precision", "recall", "coverage")


def gan_metrics(
    bundle: Bundle, training: Split, unseen: Split, judge: Bundle | None = None, seed: int = 0
) -> dict[str, float]:
    """Metrics of samples of all classes in turn, as many as there are `unseen` images, and at least 1,000.

    With a judge, samples and unseen images, equally many of both, are each compared with the same training images: the
    distances and shares depend on the number of images (coverage grows with it). `NAME/real` is the value of unseen
    images, the best possible value; `NAME_ratio` is the value of samples over that of real images. Without a judge or
    classes, only the diversity of pixels is measured.

    Args:
        bundle: a generator.
        training: the images that it was trained with.
        unseen: images that it was not trained with.
        judge: a classifier of the same classes.
        seed: of the latents.
    """
    count = max(MINIMUM, min(len(unseen), SAMPLES))
    wanted = balanced_labels(bundle, count)
    samples = sample(bundle, count, wanted, seed)
    if judge is None or wanted is None or unseen.labels is None or training.labels is None:
        return {"relative_diversity": relative_diversity(samples, wanted, unseen.images, unseen.labels)}
    from training.evaluation.generators.judge import judge_of  # noqa: PLC0415  (torch takes seconds to import)
    from training.metrics.samples import class_metrics, distribution_metrics, memorisation  # noqa: PLC0415

    extract = judge_of(judge)
    rows = evenly_spaced(len(training), count)
    seen, real, measure = extract(samples), extract(unseen.images), extract(training.images[rows])
    equal = min(len(seen), len(real))
    of_samples = distribution_metrics(seen.at(slice(equal)), measure)
    of_real = distribution_metrics(real.at(evenly_spaced(len(real), equal)), measure)
    return {
        **class_metrics(seen, wanted),
        "conditional_accuracy/real": class_metrics(real, unseen.labels)["conditional_accuracy"],
        **of_samples,
        **{f"{name}/real": value for name, value in of_real.items()},
        **{f"{name}_ratio": of_samples[name] / max(of_real[name], 1e-9) for name in RATIOS},
        "relative_diversity": relative_diversity(seen.features, wanted, measure.features, training.labels[rows]),
        **memorisation(samples, training.images, unseen.images),
    }
