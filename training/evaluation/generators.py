"""The generators' part of a report: metrics of the exported graphs, and pictures of what they draw."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset
from training.evaluation import generation, likelihood, pictures
from training.evaluation.pictures import Picture
from training.evaluation.runtime import Array, philox, spread

Images = NDArray[np.uint8]

PLOTTED = 2000  # points of a latent map
GRID = 15  # images a side of the decoded latent plane
COLUMNS = 10
BOUNDED = 100  # test images whose likelihood is bounded when a bundle is made; all of them on request
DRAWS = 100  # of z an image for that


def vae(bundle: Bundle, dataset: Dataset, directory: Path) -> tuple[dict[str, float], list[Picture]]:
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


def conditional_vae(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Bounds, and what is drawn by class: samples, reconstructions, walks, test images redrawn as every class."""
    images, labels = dataset.test.images, dataset.test.labels
    metrics = likelihood.elbo_metrics(bundle, images, labels)
    if likelihood.has_likelihood(bundle):
        metrics |= likelihood.likelihood_metrics(bundle, images[spread(len(images), BOUNDED)], samples=DRAWS)
    judged, drawn = gan(bundle, dataset, directory, judge)
    plotted = spread(len(images), PLOTTED)
    means = generation.encode(bundle, images[plotted])[0]
    pictures.latent_map(
        means, None if labels is None else labels[plotted], dataset.class_names, directory / "latent_map.png"
    )
    classes = max(1, len(dataset.class_names))
    shown = _one_of_each(images, labels, classes)
    own = np.arange(len(shown), dtype=np.int64) % classes if labels is not None else np.zeros(len(shown), np.int64)
    latents = generation.encode(bundle, shown)[0]
    decoded = _decode(bundle, latents, own)
    pictures.image_grid(
        np.concatenate([shown, decoded]), len(shown), directory / "reconstructions.png", ["original", "decoded"]
    )
    drawn.append(Picture("reconstructions.png", "Test images, and what is decoded from their latents and classes."))
    if dataset.class_names:
        every = _decode(bundle, np.repeat(latents, classes, axis=0), np.tile(np.arange(classes), len(shown)))
        rows = [np.concatenate([shown[i : i + 1], every[i * classes : (i + 1) * classes]]) for i in range(len(shown))]
        pictures.image_grid(np.concatenate(rows), classes + 1, directory / "counterfactuals.png", dataset.class_names)
        drawn.append(
            Picture("counterfactuals.png", "A test image a row, and what its latent is decoded to as every class.")
        )
    drawn.append(Picture("latent_map.png", "Means of q(z|x) of test images: the class is told to the decoder, so that "
                         "the latents need not hold it."))  # fmt: skip
    return metrics | judged, drawn


def _decode(bundle: Bundle, latents: Array, labels: NDArray[np.int64]) -> Images:
    given = labels if generation.balanced_labels(bundle, 1) is not None else None
    images: Images = generation.decode(bundle, latents, given)["images"]
    return images


def _one_of_each(images: Images, labels: NDArray[np.int64] | None, classes: int) -> Images:
    """The first test image of each class, or some where there are no classes."""
    if labels is None:
        return images[spread(len(images), COLUMNS)]
    return images[[int(np.flatnonzero(labels == label)[0]) for label in range(classes) if (labels == label).any()]]


def gan(
    bundle: Bundle, dataset: Dataset, directory: Path, judge: Bundle | None
) -> tuple[dict[str, float], list[Picture]]:
    """Samples by class, walks between two of them, and what a judge says of many."""
    names = dataset.class_names
    rows = np.repeat(np.arange(len(names)), COLUMNS) if names else None
    samples = generation.sample(bundle, COLUMNS**2 if rows is None else len(rows), rows)
    pictures.image_grid(samples, COLUMNS, directory / "samples.png", names)
    ends = philox(1).standard_normal((2, len(names) or 1, bundle.manifest.latent_size or 0), dtype=np.float32)
    steps = np.linspace(0, np.pi / 2, COLUMNS, dtype=np.float32)[:, None]
    walks = np.concatenate([np.cos(steps) * start + np.sin(steps) * end for start, end in zip(*ends, strict=True)])
    walked = generation.decode(bundle, walks, rows)["images"]
    pictures.image_grid(walked, COLUMNS, directory / "walks.png", names)
    metrics = generation.gan_metrics(bundle, dataset, judge)
    return metrics, [
        Picture("samples.png", "Samples, a row for each class." if names else "Samples."),
        Picture("walks.png", "Walks along a great circle from one latent to another, the class unchanged."),
    ]
