"""Views of an image, and a classifier of views: replaces a classifier of classes for data without classes.

A view is rotated by quarters (by halves if the image is not square), mirrored or not, shifted cyclically by a fifth of
the side or not: sixteen views, or eight. A network that predicts the transformation learns features of normal images;
the features of other images differ (I. Golan, R. El-Yaniv, "Deep anomaly detection using geometric transformations",
NeurIPS 2018; L. Bergman, Y. Hoshen, "Classification-based anomaly detection for general data", ICLR 2020).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from training.data import Dataset, Split

SHIFT = 0.18  # of the side: 5 pixels of 28
SHOWN = 3000  # most images of each view in training


def names(height: int, width: int) -> tuple[str, ...]:
    """The names of the transformations of an image of that size, view by view."""
    return tuple(
        f"{90 * turn}{' mirrored' if mirror else ''}{' shifted' if shift else ''}"
        for turn in turns(height, width)
        for mirror in (False, True)
        for shift in (False, True)
    )


def turns(height: int, width: int) -> tuple[int, ...]:
    """Rotations in quarters that keep the shape of an image."""
    return (0, 1, 2, 3) if height == width else (0, 2)


class Views(nn.Module):
    """Images [N,C,H,W] to their V views [N * V,C,H,W]; the views of an image are adjacent."""

    outputs = ("views",)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        height, width = images.shape[2:]
        far = max(1, round(SHIFT * min(height, width)))
        views = []
        for turn in turns(height, width):
            # Not rot90: every exporter supports a transposition and a flip.
            turned = images if turn % 2 == 0 else images.transpose(2, 3)
            turned = turned.flip(2) if turn in (1, 2) else turned
            turned = turned.flip(3) if turn in (2, 3) else turned
            for mirrored in (turned, turned.flip(3)):
                moved = torch.cat([mirrored[:, :, -far:], mirrored[:, :, :-far]], dim=2)
                views += [mirrored, torch.cat([moved[:, :, :, -far:], moved[:, :, :, :-far]], dim=3)]
        return (torch.stack(views, dim=1).flatten(0, 1),)


def of_views(dataset: Dataset) -> Dataset:
    """The views of the images of `dataset`, labelled with their transformations."""
    splits = {
        "train": _views(dataset.train, SHOWN),
        "validation": _views(dataset.validation, 100),
        "calibration": _views(dataset.calibration, 100),
        "test": _views(dataset.test, 100),
    }
    return replace(dataset, name=f"{dataset.name}-views", class_names=names(*dataset.image_shape[1:]), **splits)


def _views(split: Split, count: int) -> Split:
    images = split.images[np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)]
    with torch.no_grad():
        (views,) = Views()(torch.from_numpy(images))
    return Split(views.numpy(), np.tile(np.arange(len(views) // len(images)), len(images)))
