from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits as load_raw
from sklearn.neighbors import KNeighborsClassifier

from training.data import Dataset, load
from training.data.dataset import ROLES


def rows(data: Dataset, role: str) -> np.ndarray:
    images: np.ndarray = getattr(data, role).images
    return images.reshape(len(images), -1)


def test_every_digit_is_in_exactly_one_split() -> None:
    data = load("digits")
    assert data.name == "digits"
    assert data.class_names == tuple("0123456789")
    assert data.image_shape == (1, 28, 28)
    assert sum(data.splits.values()) == 1797
    raw = load_raw()
    labels = np.concatenate([getattr(data, role).labels for role in ROLES])
    assert np.array_equal(np.bincount(labels), np.bincount(raw.target))
    # The 1,797 originals are distinct, and so are they after upscaling: a repeated row would be a repeated image.
    assert len(np.unique(raw.images.reshape(1797, -1), axis=0)) == 1797
    assert len(np.unique(np.concatenate([rows(data, role) for role in ROLES]), axis=0)) == 1797


def test_split_sizes_are_the_stated_shares_in_every_class() -> None:
    data = load("digits")
    for role, share in zip(ROLES, (0.525, 0.075, 0.15, 0.25), strict=True):
        assert abs(data.splits[role] - 1797 * share) <= 10
        counts = np.bincount(getattr(data, role).labels)
        totals = np.bincount(load_raw().target)
        assert (np.abs(counts - totals * share) <= 1).all()


def test_pixels_use_the_whole_range_and_downscale_to_the_originals() -> None:
    data = load("digits")
    assert data.train.images.min() == 0
    assert data.train.images.max() >= 250
    assert data.train.images.flags.c_contiguous
    # Interpolated: far more grey levels than the 17 of the originals.
    assert len(np.unique(data.train.images)) > 200
    # Ink is kept: the mean grey level of the 28x28 images is that of the 8x8 ones, within the border's weight.
    mean = np.concatenate([rows(data, role) for role in ROLES]).mean() / 255
    assert abs(mean - load_raw().images.mean() / 16) < 0.01


def test_same_digest_every_time() -> None:
    assert load("digits").digest == load("digits").digest


def test_labels_belong_to_their_images() -> None:
    data = load("digits")
    neighbours = KNeighborsClassifier(3).fit(rows(data, "train"), data.train.labels)
    assert neighbours.score(rows(data, "test"), data.test.labels) > 0.95
