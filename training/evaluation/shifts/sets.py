"""The sets of anomalies that fit a data set, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from training.data import Dataset, load
from training.data.arrays import Images, evenly_spaced, philox
from training.data.download import SHA256, cache_directory
from training.evaluation.shifts.defects import blot, defects
from training.evaluation.shifts.digits import padded_digits, stretched_digits
from training.evaluation.shifts.letters import UNLIKE, letters
from training.evaluation.shifts.whole_image import (
    Maker,
    far_anomalies,
    inverted,
    patch_shuffled,
    rotated_90,
    uniform_noise,
)

OTHER = MappingProxyType({"mnist": "fashion-mnist", "fashion-mnist": "mnist"})


def anomaly_sets(
    dataset: Dataset, normal_images: Images, other: Dataset | None = None, count: int = 2000, seed: int = 0
) -> Mapping[str, Images]:
    """Every set of anomalies that fits `dataset`, by name; equal arguments, equal pixels.

    Args:
        dataset: what is normal.
        normal_images: uint8 [N,C,H,W], test images that the far anomalies and the defects are made from.
        other: data whose test images form one more set, named after the data; None for no such set.
        count: most images in a set.
        seed: of all random numbers.

    Raises:
        ValueError: `other` has images of another shape.
    """
    normals = normal_images[evenly_spaced(len(normal_images), count)]
    damaged = {name: made.images for name, made in defects(normals, seed).items() if len(made.images)}
    sets = far_anomalies(normals, seed) | damaged
    if dataset.image_shape == (1, 28, 28):
        sets |= {"letters": letters(count, seed=seed), "letters_unlike_digits": letters(count, UNLIKE, seed)}
        if dataset.name != "digits":  # for which they are normal
            drawn = {"digits_stretched": stretched_digits(), "digits_padded": padded_digits()}
            sets |= {name: images[evenly_spaced(len(images), count)] for name, images in drawn.items()}
    if other is not None:
        if other.image_shape != dataset.image_shape:
            raise ValueError(
                f"{other.name} has images of shape {other.image_shape}, but {dataset.name} has {dataset.image_shape}; "
                "give data of the same shape"
            )
        sets[other.name] = other.test.images[evenly_spaced(len(other.test), count)]
    return sets


def other_data(dataset: Dataset, folder: Path | None = None) -> Dataset | None:
    """Fashion-MNIST for MNIST and the reverse, if its files exist; nothing is downloaded.

    Args:
        dataset: what is normal.
        folder: has a folder for each of the two; without it, DUET_DATA_DIR and then the cache are searched.
    """
    name = OTHER.get(dataset.name)
    if name is None:
        return None
    home = Path(folder or os.environ.get("DUET_DATA_DIR") or cache_directory()).expanduser() / name
    if all(any(home.joinpath(file + suffix).is_file() for suffix in ("", ".gz")) for file in SHA256[name]):
        return load(name, folder=home)
    return None


def simple_anomalies(images: Images, seed: int = 0) -> dict[str, Images]:
    """Each simple anomaly made from `images` [N,C,H,W], by name; the rotation needs square images."""
    square = images.shape[2] == images.shape[3]
    makers = {name: maker for name, maker in ANOMALIES.items() if square or maker is not rotated_90}
    return {name: np.ascontiguousarray(maker(images, philox(seed))) for name, maker in makers.items()}


def _blotted(images: Images, generator: np.random.Generator) -> Images:
    return blot(images, generator).images


ANOMALIES: dict[str, Maker] = {
    "uniform_noise": uniform_noise,
    "inverted": inverted,
    "patch_shuffled": patch_shuffled,
    "rotated_90": rotated_90,
    "blot": _blotted,
}
