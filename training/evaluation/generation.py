"""How well a generator covers the data: the ELBO of a VAE, the judged samples of a conditional GAN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation.runtime import Array, open_graph, philox, run, spread

MINIMUM, SAMPLES = 1000, 10_000  # to be judged
RATIOS = ("inception_score", "precision", "recall", "coverage")
CLIP = 1e-7  # keeps log(pixel) finite where the decoder saturated


def encode(bundle: Bundle, images: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Mean and log variance [N,D] of q(z|x)."""
    outputs = run(open_graph(bundle.graph_path("encode")), {"images": images})
    return outputs["mean"], outputs["log_variance"]


def decode(bundle: Bundle, latents: Array, labels: NDArray[np.int64] | None = None) -> dict[str, Array]:
    """`images` uint8 and `pixels` float32 in 0..1, both [N,C,H,W]."""
    feeds: dict[str, Array] = {"latents": latents} if labels is None else {"latents": latents, "labels": labels}
    return run(open_graph(bundle.graph_path("decode")), feeds)


def sample(bundle: Bundle, count: int, labels: NDArray[np.int64] | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """Images [count,C,H,W] decoded from standard normal latents."""
    latents = philox(seed).standard_normal((count, bundle.manifest.latent_size or 0), dtype=np.float32)
    images: NDArray[np.uint8] = decode(bundle, latents, labels)["images"]
    return images


def balanced_labels(bundle: Bundle, count: int) -> NDArray[np.int64] | None:
    """Labels 0, 1, ..., K-1, 0, ... for a conditional generator, None for one without labels."""
    if all(tensor.name != "labels" for tensor in bundle.manifest.graphs["decode"].inputs):
        return None
    return np.arange(count, dtype=np.int64) % len(bundle.manifest.class_names)


def vae_metrics(bundle: Bundle, images: NDArray[np.uint8], mean_image: Array, seed: int = 0) -> dict[str, float]:
    """The negative ELBO in nats an image and its two terms (Kingma & Welling, 2014, eq. 10), with its bounds.

    Grey pixels are targets of a cross-entropy, not draws of a Bernoulli variable, so this is no likelihood: even a
    perfect decoder pays `pixel_entropy`. `mean_image_loss` is what the training mean `mean_image` [C,H,W] in 0..1 pays.
    """
    mean, log_variance = encode(bundle, images)
    noise = philox(seed).standard_normal(mean.shape, dtype=np.float32)
    reconstruction = cross_entropy(images, decode(bundle, mean + np.exp(0.5 * log_variance) * noise)["pixels"])
    divergence = gaussian_kl(mean, log_variance)
    squared_error = np.square(decode(bundle, mean)["pixels"] - images.astype(np.float32) / 255)
    return {
        "negative_elbo": float(reconstruction.mean() + divergence.mean()),
        "reconstruction_loss": float(reconstruction.mean()),
        "kl_divergence": float(divergence.mean()),
        "pixel_entropy": float(cross_entropy(images, images.astype(np.float32) / 255).mean()),
        "mean_image_loss": float(cross_entropy(images, mean_image[None]).mean()),
        "reconstruction_error": float(squared_error.mean()),
    }


def cross_entropy(images: NDArray[np.uint8], pixels: Array) -> NDArray[np.float64]:
    """Pixels times mean binary cross-entropy, in nats an image [N], of `pixels` against `images` scaled to 0..1."""
    x = images.reshape(len(images), -1).astype(np.float64) / 255
    p = np.clip(pixels.reshape(len(pixels), -1).astype(np.float64), CLIP, 1 - CLIP)
    result: NDArray[np.float64] = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=1)
    return result


def gaussian_kl(mean: Array, log_variance: Array) -> NDArray[np.float64]:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats [N] (Kingma & Welling, 2014, appendix B)."""
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    result: NDArray[np.float64] = 0.5 * (np.square(mean) + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    return result


def gan_metrics(bundle: Bundle, dataset: Dataset, judge: Bundle | None = None, seed: int = 0) -> dict[str, float]:
    """How samples of all classes in turn, as many as there are test images, compare with real ones.

    With a judge, samples and test images are each compared with as many training images; `NAME/real` is what test
    images get, the best that can be asked for, and `NAME_ratio` samples by real. Without one (or classes), all that is
    said is how varied the pixels are.
    """
    test, training = dataset.test, dataset.train
    count = max(MINIMUM, min(len(test), SAMPLES))
    wanted = balanced_labels(bundle, count)
    samples = sample(bundle, count, wanted, seed)
    if judge is None or wanted is None or test.labels is None or training.labels is None:
        return {"relative_diversity": relative_diversity(samples, wanted, test.images, test.labels)}
    from training.evaluation.judge import judge_of  # noqa: PLC0415  (torch takes seconds to import)
    from training.evaluation.samples import (  # noqa: PLC0415
        class_metrics,
        distribution_metrics,
        memorisation,
        relative_diversity_seen,
    )

    look = judge_of(judge)
    rows = spread(len(training), count)
    seen, real, measure = look(samples), look(test.images), look(training.images[rows])
    of_samples, of_real = distribution_metrics(seen, measure), distribution_metrics(real, measure)
    return {
        **class_metrics(seen, wanted),
        "conditional_accuracy/real": class_metrics(real, test.labels)["conditional_accuracy"],
        **of_samples,
        **{f"{name}/real": value for name, value in of_real.items()},
        **{f"{name}_ratio": of_samples[name] / max(of_real[name], 1e-9) for name in RATIOS},
        "relative_diversity": relative_diversity_seen(seen, wanted, measure, training.labels[rows]),
        **memorisation(samples, training.images, test.images),
    }


def total_variation(left: NDArray[np.int64], right: NDArray[np.int64], classes: int) -> float:
    """Half the L1 distance between two class histograms, 0 (equal) to 1 (disjoint)."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (left, right)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def relative_diversity(
    samples: NDArray[np.uint8],
    sample_labels: NDArray[np.int64] | None,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
) -> float:
    """Mean pairwise pixel distance of samples over that of as many real images, within each class, averaged.

    Near 1 for a generator as diverse as the data, 0 for one that collapsed to one image a class.
    """
    if sample_labels is None or labels is None:
        return mean_distance(samples) / mean_distance(images[spread(len(images), len(samples))])
    ratios = []
    for label in np.unique(sample_labels):
        drawn = samples[sample_labels == label]
        real = images[labels == label][: len(drawn)]
        if len(real) > 1 and (distance := mean_distance(real)) > 0:
            ratios.append(mean_distance(drawn) / distance)
    return float(np.mean(ratios))


def mean_distance(images: NDArray[np.uint8]) -> float:
    """Mean Euclidean distance, in 0..1 pixels, over all pairs of different images."""
    flat = images.reshape(len(images), -1).astype(np.float64) / 255
    squares = np.square(flat).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    return float(distances[np.triu_indices(len(images), k=1)].mean())
