"""Samples of a stored generator as training images."""

from __future__ import annotations

from dataclasses import replace

from services.inference import registry
from training.data import Dataset, Split
from training.data.dataset import joined
from training.data.seen import require_apart
from training.graphs.inference import balanced_labels, sample


def with_samples(dataset: Dataset, generator: str, count: int, *, seed: int, trusted: bool = False) -> Dataset:
    """`dataset` with `count` additional samples in the training split, equally many of each class.

    Args:
        dataset: labelled.
        generator: NAME or NAME:VERSION of a conditional generator of the same classes and image shape.
        count: samples to draw.
        seed: of their latents.
        trusted: take a generator that may have seen images of the calibration or test split, and may draw them.

    Raises:
        BundleError: there is no such bundle, or it does not verify.
        ValueError: it draws other images or other classes, does not draw by class, or may have seen held-out images.
    """
    entry = registry.find(generator)
    bundle = registry.load(entry.tag)
    manifest = bundle.manifest
    if manifest.task != "generation":
        raise ValueError(f"{entry.tag} is a bundle for {manifest.task}, which draws no images; give a conditional GAN")
    if (manifest.image.shape, manifest.class_names) != (dataset.image_shape, dataset.class_names):
        raise ValueError(
            f"{entry.tag} draws images {manifest.image.shape} of {', '.join(manifest.class_names) or 'no classes'}, "
            f"but {dataset.name} has {dataset.image_shape} of {', '.join(dataset.class_names) or 'no classes'}; give a "
            "generator that was trained on data like these"
        )
    require_apart("--synthetic", bundle, dataset, trusted=trusted)
    labels = balanced_labels(bundle, count)
    if labels is None:
        raise ValueError(f"{entry.tag} does not draw by class, so its samples have no labels; give a conditional GAN")
    images = sample(bundle, count, labels, seed=seed)
    return replace(dataset, train=joined(dataset.train, Split(images, labels)))
