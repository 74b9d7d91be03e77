"""The graphs of a generator, and the metrics of its samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Split
from training.evaluation.diversity import relative_diversity
from training.evaluation.runtime import Array, open_graph, philox, run, spread

MINIMUM, SAMPLES = 1000, 10_000  # least and most samples to judge
Prior = tuple[NDArray[np.float64], NDArray[np.float64]]  # N(means[y], factors[y] factors[y]^T): [K,D], [K,D,D]
RATIOS = ("inception_score", "precision", "recall", "coverage")


def encode(bundle: Bundle, images: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Mean and log variance [N,D] of q(z|x)."""
    outputs = run(open_graph(bundle.graph_path("encode")), {"images": images})
    return outputs["mean"], outputs["log_variance"]


def decode(bundle: Bundle, latents: Array, labels: NDArray[np.int64] | None = None) -> dict[str, Array]:
    """`images` uint8 and `pixels` float32 in 0..1, both [N,C,H,W]."""
    feeds: dict[str, Array] = {"latents": latents} if labels is None else {"latents": latents, "labels": labels}
    return run(open_graph(bundle.graph_path("decode")), feeds)


def sample(bundle: Bundle, count: int, labels: NDArray[np.int64] | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """Images [count,C,H,W] decoded from draws of the prior."""
    noise = philox(seed).standard_normal((count, bundle.manifest.latent_size or 0), dtype=np.float32)
    images: NDArray[np.uint8] = decode(bundle, from_noise(bundle, noise, labels), labels)["images"]
    return images


def from_noise(bundle: Bundle, noise: Array, labels: NDArray[np.int64] | None = None) -> Array:
    """Draws of the prior [N,D] from draws of N(0, I) [N,D]; both are equal unless the bundle has a `prior`."""
    if "prior" not in bundle.manifest.graphs:
        return noise
    feeds = {"noise": noise} if labels is None else {"noise": noise, "labels": labels}
    return run(open_graph(bundle.graph_path("prior")), feeds)["latents"]


def prior(bundle: Bundle) -> Prior:
    """The prior of each class."""
    size = bundle.manifest.latent_size or 0
    noise = np.concatenate([np.zeros((1, size), np.float32), np.eye(size, dtype=np.float32)])
    means, factors = [], []
    for label in range(max(1, len(bundle.manifest.class_names)) if by_class(bundle) else 1):
        labels = np.full(len(noise), label, np.int64) if by_class(bundle) else None
        latents = from_noise(bundle, noise, labels).astype(np.float64)
        means.append(latents[0])
        factors.append((latents[1:] - latents[0]).T)
    return np.stack(means), np.stack(factors)


def by_class(bundle: Bundle) -> bool:
    """Whether the decoder of a generator takes the class."""
    return any(tensor.name == "labels" for tensor in bundle.manifest.graphs["decode"].inputs)


def balanced_labels(bundle: Bundle, count: int) -> NDArray[np.int64] | None:
    """Labels 0, 1, ..., K-1, 0, ... for a conditional generator, None for one without labels."""
    if not by_class(bundle):
        return None
    return np.arange(count, dtype=np.int64) % len(bundle.manifest.class_names)


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
    from training.evaluation.judge import judge_of  # noqa: PLC0415  (torch takes seconds to import)
    from training.evaluation.samples import (  # noqa: PLC0415
        class_metrics,
        distribution_metrics,
        memorisation,
    )

    look = judge_of(judge)
    rows = spread(len(training), count)
    seen, real, measure = look(samples), look(unseen.images), look(training.images[rows])
    equal = min(len(seen), len(real))
    of_samples = distribution_metrics(seen.at(slice(equal)), measure)
    of_real = distribution_metrics(real.at(spread(len(real), equal)), measure)
    return {
        **class_metrics(seen, wanted),
        "conditional_accuracy/real": class_metrics(real, unseen.labels)["conditional_accuracy"],
        **of_samples,
        **{f"{name}/real": value for name, value in of_real.items()},
        **{f"{name}_ratio": of_samples[name] / max(of_real[name], 1e-9) for name in RATIOS},
        "relative_diversity": relative_diversity(seen.features, wanted, measure.features, training.labels[rows]),
        **memorisation(samples, training.images, unseen.images),
    }


def total_variation(left: NDArray[np.int64], right: NDArray[np.int64], classes: int) -> float:
    """Half the L1 distance between two class histograms, 0 (equal) to 1 (disjoint)."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (left, right)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())
