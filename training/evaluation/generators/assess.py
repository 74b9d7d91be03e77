"""The generators' part of a report: metrics of the exported graphs, and pictures of what they draw."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.arrays import Images, evenly_spaced, philox
from training.evaluation import figures
from training.evaluation.figures import Picture
from training.evaluation.generators import elbo, likelihood, sample_metrics
from training.evaluation.generators.judge import judge_of, perceptual_distance
from training.graphs.inference import by_class, decode, encode, from_noise, sample

PLOTTED = 2000  # points of a latent map
GRID = 15  # images a side of the decoded latent plane
COLUMNS = 10
BOUNDED = 100  # test images whose likelihood is bounded when a bundle is made; all of them with --full
DRAWS = 100  # of z for each of these images


def vae_metrics(bundle: Bundle, training: Split, unseen: Split, judge: Bundle | None) -> dict[str, float]:
    """The bound of `unseen` images with its terms, and with a judge the distance of their reconstructions."""
    mean_image = training.images.mean(axis=0, dtype=np.float64) / 255
    metrics = elbo.elbo_metrics(bundle, unseen.images) | elbo.grey_bounds(unseen.images, mean_image)
    return metrics | _perceived(bundle, unseen.images, None, judge)


def conditional_vae_metrics(bundle: Bundle, training: Split, unseen: Split, judge: Bundle | None) -> dict[str, float]:
    """The bound of `unseen` images with their classes, and the metrics of samples."""
    metrics = elbo.elbo_metrics(bundle, unseen.images, unseen.labels)
    metrics |= _perceived(bundle, unseen.images, unseen.labels, judge)
    return metrics | sample_metrics.gan_metrics(bundle, training, unseen, judge)


def validate_vae(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    """`vae_metrics` of the validation split."""
    return vae_metrics(bundle, dataset.train, dataset.validation, judge)


def validate_conditional_vae(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    """`conditional_vae_metrics` of the validation split."""
    return conditional_vae_metrics(bundle, dataset.train, dataset.validation, judge)


def validate_gan(bundle: Bundle, dataset: Dataset, judge: Bundle | None) -> dict[str, float]:
    """`gan_metrics` by the validation split."""
    return sample_metrics.gan_metrics(bundle, dataset.train, dataset.validation, judge)


def vae(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    images = dataset.test.images
    metrics = vae_metrics(bundle, dataset.train, dataset.test, judge)
    samples = sample(bundle, COLUMNS**2)
    figures.image_grid(samples, COLUMNS, directory / "samples.png")
    drawn = [
        Picture("samples.png", "Samples decoded from standard normal latents."),
        _reconstructions(bundle, images[evenly_spaced(len(images), COLUMNS)], None, directory),
        _latent_map(bundle, dataset, directory),
    ]
    if bundle.manifest.latent_size == 2:
        quantiles = [NormalDist().inv_cdf((i + 0.5) / GRID) for i in range(GRID)]
        plane = np.array([(x, y) for y in reversed(quantiles) for x in quantiles], dtype=np.float32)
        grid = decode(bundle, plane)["images"]
        figures.image_grid(grid, GRID, directory / "latent_grid.png")
        drawn.append(Picture("latent_grid.png", "The latent plane, decoded at equally spaced quantiles of the prior."))
    return metrics, drawn


def conditional_vae(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Bounds, and pictures by class: samples, reconstructions, interpolations, test images redrawn as every class."""
    images, labels = dataset.test.images, dataset.test.labels
    metrics = conditional_vae_metrics(bundle, dataset.train, dataset.test, judge)
    if elbo.has_likelihood(bundle):
        metrics |= likelihood.likelihood_metrics(bundle, images[evenly_spaced(len(images), BOUNDED)], samples=DRAWS)
    drawn = _drawn(bundle, dataset, directory)
    if labels is None:
        drawn.append(_reconstructions(bundle, images[evenly_spaced(len(images), COLUMNS)], None, directory))
    else:
        firsts = np.array([int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)])
        drawn.append(_reconstructions(bundle, images[firsts], labels[firsts], directory))
        drawn.append(_counterfactuals(bundle, images[firsts], directory))
    return metrics, [*drawn, _latent_map(bundle, dataset, directory)]


def _perceived(
    bundle: Bundle, images: Images, labels: NDArray[np.int64] | None, judge: Bundle | None
) -> dict[str, float]:
    """The distance of reconstructions from their images in the features of a judge, if there is one."""
    if judge is None:
        return {}
    decoded = decode(bundle, encode(bundle, images)[0], labels)["images"]
    return {"perceptual_distance": perceptual_distance(judge_of(judge), images, decoded)}


def _latent_map(bundle: Bundle, dataset: Dataset, directory: Path) -> Picture:
    rows = evenly_spaced(len(dataset.test), PLOTTED)
    labels = None if dataset.test.labels is None else dataset.test.labels[rows]
    means = encode(bundle, dataset.test.images[rows])[0]
    figures.latent_map(means, labels, dataset.class_names, directory / "latent_map.png")
    told = " The decoder also gets the class, so that latents need not contain it." if by_class(bundle) else ""
    return Picture("latent_map.png", f"Posterior means of test images.{told}")


def _reconstructions(bundle: Bundle, shown: Images, labels: NDArray[np.int64] | None, directory: Path) -> Picture:
    decoded = decode(bundle, encode(bundle, shown)[0], labels)["images"]
    figures.image_grid(
        np.concatenate([shown, decoded]), len(shown), directory / "reconstructions.png", ["original", "decoded"]
    )
    return Picture("reconstructions.png", "Test images, and the images decoded from their posterior means.")


def _counterfactuals(bundle: Bundle, shown: Images, directory: Path) -> Picture:
    names = bundle.manifest.class_names
    latents = np.repeat(encode(bundle, shown)[0], len(names), axis=0)
    every = decode(bundle, latents, np.tile(np.arange(len(names)), len(shown)))["images"]
    rows = np.concatenate([shown[:, None], every.reshape(len(shown), len(names), *shown.shape[1:])], axis=1)
    figures.image_grid(rows.reshape(-1, *shown.shape[1:]), len(names) + 1, directory / "counterfactuals.png", names)
    return Picture("counterfactuals.png", "In each row a test image, and its latent decoded as every class.")


def gan(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Samples by class, interpolations between two latents, and a judge's metrics of many samples."""
    drawn = _drawn(bundle, dataset, directory)
    return sample_metrics.gan_metrics(bundle, dataset.train, dataset.test, judge), drawn


def _drawn(bundle: Bundle, dataset: Dataset, directory: Path) -> list[Picture]:
    names = dataset.class_names
    rows = np.repeat(np.arange(len(names)), COLUMNS) if names else None
    samples = sample(bundle, COLUMNS**2 if rows is None else len(rows), rows)
    figures.image_grid(samples, COLUMNS, directory / "samples.png", names)
    ends = philox(1).standard_normal((2, len(names) or 1, bundle.manifest.latent_size or 0), dtype=np.float32)
    steps = np.linspace(0, np.pi / 2, COLUMNS, dtype=np.float32)[:, None]
    walks = np.concatenate([np.cos(steps) * start + np.sin(steps) * end for start, end in zip(*ends, strict=True)])
    walked = decode(bundle, from_noise(bundle, walks, rows), rows)["images"]
    figures.image_grid(walked, COLUMNS, directory / "walks.png", names)
    return [
        Picture("samples.png", "Samples, a row for each class." if names else "Samples."),
        Picture("walks.png", "Interpolations along a great circle from one latent to another, with the same class."),
    ]
