"""Localisation of defects by the heat map: pixel AUROC, and AUPRO, in which small and large defects count equally."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from training.data.arrays import Array, Mask

LIMIT = 0.3
# A pixel is connected to its eight neighbours in the same image.
NEIGHBOURS = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])


def pixel_auroc(maps: Array, masks: Mask) -> float:
    """The probability that a pixel of a defect has a higher value than another pixel, over all images; both [N,H,W]."""
    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def aupro(maps: Array, masks: Mask, limit: float = LIMIT) -> float:
    """The area under the per-region overlap up to a false-positive rate of `limit`, divided by `limit`: 0 to 1.

    At each threshold the overlap is the share of a region at or above it, averaged over all regions of all images: the
    connected parts of the masks. The false-positive rate is that of all other pixels (P. Bergmann et al., "Uninformed
    students", CVPR 2020, section 4.1, and "The MVTec anomaly detection dataset", IJCV 2021, section 5.2). A random map
    has about `limit` / 2.

    Args:
        maps: [N,H,W], high where a defect is supposed.
        masks: [N,H,W], where it is.
        limit: the largest false-positive rate that counts.

    Raises:
        ValueError: no pixel is in a mask, or all are.
    """
    regions, count = ndimage.label(masks, NEIGHBOURS)
    if not count or masks.all():
        raise ValueError(
            f"masks: {masks.sum()} of {masks.size} pixels are defects; give masks with both kinds of pixels"
        )
    flat = regions.ravel()
    # What a pixel adds to the mean overlap when the threshold reaches its value.
    share = 1 / (count * np.bincount(flat, minlength=count + 1))
    share[0] = 0
    order = np.argsort(-maps.ravel(), kind="stable")
    hottest, region = maps.ravel()[order], flat[order]
    last = np.append(hottest[1:] != hottest[:-1], True)  # pixels with equal values pass a threshold together
    overlap = np.concatenate([[0.0], share[region].cumsum()[last]])
    false = np.concatenate([[0.0], (region == 0).cumsum()[last] / (~masks).sum()])
    end = int(np.searchsorted(false, limit))  # the last step is cut off at the limit
    part = (limit - false[end - 1]) / (false[end] - false[end - 1])
    x = np.append(false[:end], limit)
    y = np.append(overlap[:end], overlap[end - 1] + part * (overlap[end] - overlap[end - 1]))
    return float(np.trapezoid(y, x) / limit)
