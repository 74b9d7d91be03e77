"""Images and labels in four roles, held as uint8 arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

ROLES = ("train", "validation", "calibration", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N,C,H,W], and labels int64 [N] unless the data have none."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}; give uint8 [N,C,H,W]")
        if self.labels is not None and (self.labels.dtype != np.int64 or self.labels.shape != (len(self),)):
            raise ValueError(f"labels are {self.labels.dtype} {self.labels.shape}; give int64 [{len(self)}]")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """The images (and labels) at `indices`, in that order, copied."""
        return Split(self.images[indices], None if self.labels is None else self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Four splits without common files; of a folder, without common images.

    Train fits the weights. Validation selects: early stopping, the best checkpoint, the temperature. Calibration is
    used neither for training nor for selection, so conformal tables fitted on it are valid on new data. Test is used
    once, for the final metrics.
    """

    name: str
    class_names: tuple[str, ...]  # empty if the data have no labels
    train: Split
    validation: Split
    calibration: Split
    test: Split

    def __post_init__(self) -> None:
        for role in ROLES:
            split: Split = getattr(self, role)
            if split.images.shape[1:] != self.image_shape:
                raise ValueError(
                    f"{role}: images are {split.images.shape[1:]}, but those of train are {self.image_shape}"
                )
            if (split.labels is None) != (not self.class_names):
                raise ValueError(f"{role}: give both labels and class_names, or neither")
            if split.labels is not None and not np.isin(split.labels, range(len(self.class_names))).all():
                raise ValueError(f"{role}: labels must be 0 to {len(self.class_names) - 1}, one for each class name")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def splits(self) -> dict[str, int]:
        """The number of images by role."""
        return {role: len(getattr(self, role)) for role in ROLES}

    @cached_property
    def images_digest(self) -> str:
        """SHA-256 (hex) of all images, whatever their order and splits: it is equal for one set, split in two ways."""
        return _digest([image for digests in self._image_digests.values() for image in digests])

    @cached_property
    def split_digests(self) -> dict[str, str]:
        """SHA-256 (hex) of the images of each split, whatever their order."""
        return {role: _digest(digests) for role, digests in self._image_digests.items()}

    @cached_property
    def _image_digests(self) -> dict[str, list[bytes]]:
        shape = json.dumps(self.image_shape).encode()
        return {
            role: [hashlib.sha256(shape + image.tobytes()).digest() for image in getattr(self, role).images]
            for role in ROLES
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the name, the class names, and the dtype, shape and bytes of every split's arrays."""
        sha = hashlib.sha256(json.dumps([self.name, self.class_names]).encode())
        for role in ROLES:
            split: Split = getattr(self, role)
            for array in (split.images, split.labels):
                # Each array's length is in the header before it, so no two data sets hash the same bytes.
                header = None if array is None else [array.dtype.name, array.shape]
                sha.update(json.dumps([role, header]).encode())
                sha.update(b"" if array is None else array.tobytes())
        return sha.hexdigest()


def _digest(images: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(images))).hexdigest()


def joined(first: Split, second: Split) -> Split:
    """The images and labels of both splits.

    Raises:
        ValueError: one has no labels.
    """
    if first.labels is None or second.labels is None:
        raise ValueError("labels: some of the images have no labels; use labelled data")
    return Split(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


def labels_of(split: Split) -> NDArray[np.int64]:
    """The labels [N] of a split."""
    if split.labels is None:
        raise ValueError("labels: the data have no labels; use labelled data")
    return split.labels
