"""Metrics of samples in the features of a judge: fidelity, coverage, diversity, and copies of training images.

Distances between the distributions come from torchmetrics; the other metrics are here. Every figure depends on the
judge and on the number of images, so it is reported together with the same figure for real images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from training.data.arrays import Array, Images, Labels, evenly_spaced, philox

if TYPE_CHECKING:
    from torch.nn import Module

PRECISION_NEIGHBOURS = 3  # T. Kynkäänniemi et al., NeurIPS 2019
DENSITY_NEIGHBOURS = 5  # M. F. Naeem et al., ICML 2020
KERNEL_SUBSETS = 20
NEIGHBOURS_OF = 500  # samples whose nearest training images are searched
SAME = 0.25  # share of the median distance; closer samples are near duplicates
BLOCK = 1000  # rows of a distance matrix in memory at once


def distribution_metrics(samples: Features, real: Features, *, seed: int = 0) -> dict[str, float]:
    """Distances between `real` images and `samples`, and how much each covers the other.

    frechet_distance, kernel_distance (M. Bińkowski et al., ICLR 2018, unbiased, cubic kernel), inception_score
    (T. Salimans et al., NeurIPS 2016, by the judge's classes, one split), precision, recall, density, coverage.
    """
    import torch  # noqa: PLC0415  (the other metrics need none of these)
    from torchmetrics.image.kid import KernelInceptionDistance  # noqa: PLC0415

    torch.manual_seed(seed)  # subsets of the kernel distance
    size = min(1000, len(samples), len(real))
    with warnings.catch_warnings():  # about features kept in memory; they are in memory anyway
        warnings.simplefilter("ignore")
        kernel = KernelInceptionDistance(feature=_given(samples), subsets=KERNEL_SUBSETS, subset_size=size)
    kernel.update(torch.from_numpy(real.features), real=True)
    kernel.update(torch.from_numpy(samples.features), real=False)
    return {
        "frechet_distance": frechet_distance(samples, real),
        "kernel_distance": float(kernel.compute()[0]),
        "inception_score": inception_score(samples),
        **prdc(samples.features, real.features),
    }


def frechet_distance(samples: Features, real: Features) -> float:
    """The distance of two Gaussians fitted to the features (M. Heusel et al., NeurIPS 2017, equation 6)."""
    import torch  # noqa: PLC0415
    from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: PLC0415

    metric = FrechetInceptionDistance(feature=_given(samples)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real.features), real=True)
    metric.update(torch.from_numpy(samples.features), real=False)
    return float(metric.compute())


def inception_score(seen: Features) -> float:
    """The inception score exp E KL(p(y|x) || p(y)), 1 to K: high for recognisable images of all classes."""
    p = np.maximum(seen.probabilities.astype(np.float64), 1e-12)
    return float(np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()))


def prdc(samples: Array, real: Array, *, neighbours: int = PRECISION_NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of features [N,D] and [M,D].

    precision: the share of samples within the radius of a real image, which is its distance to its third nearest real
    image; recall: the same with samples and real images exchanged (T. Kynkäänniemi et al., "Improved precision and
    recall metric for assessing generative models", NeurIPS 2019). density: the mean number of real images whose radius
    (to the fifth nearest) contains a sample, divided by five; coverage: the share of real images with a sample in their
    radius (M. F. Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020, equations 4
    and 5).
    """
    third, fifth = _reach(real, (neighbours, DENSITY_NEIGHBOURS))
    (reach_of_samples,) = _reach(samples, (neighbours,))
    within_third = np.zeros(len(samples), bool)
    within_fifth = np.zeros(len(samples))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, squares in _squares(samples, real):
        within_third[rows] = (squares <= third).any(axis=1)
        within_fifth[rows] = (squares <= fifth).sum(axis=1)
        recalled |= (squares <= reach_of_samples[rows, None]).any(axis=0)
        covered |= (squares <= fifth).any(axis=0)
    return {
        "precision": float(within_third.mean()),
        "recall": float(recalled.mean()),
        "density": float(within_fifth.mean() / DENSITY_NEIGHBOURS),
        "coverage": float(covered.mean()),
    }


def class_metrics(seen: Features, wanted: Labels) -> dict[str, float]:
    """Whether samples have the requested class, and whether classes are equally frequent, as the judge predicts."""
    accuracies = [float((seen.classes[wanted == label] == label).mean()) for label in np.unique(wanted)]
    return {
        "conditional_accuracy": float((seen.classes == wanted).mean()),
        "worst_class_accuracy": min(accuracies),
        "class_total_variation": total_variation(seen.classes, wanted, seen.probabilities.shape[1]),
    }


def memorisation(samples: Images, training: Images, unseen: Images) -> dict[str, float]:
    """Pixel distances to the nearest training image, and near duplicates among samples.

    nearest_training_ratio: the median over samples, divided by the median over `unseen` real images; far below 1 if a
    generator copies. near_duplicates: the share of samples whose nearest other sample is closer than a quarter of the
    median distance of a real image to its nearest one (after S. Arora, Y. Zhang, "Do GANs actually learn the
    distribution?", ICLR 2018: the birthday paradox); about 0 for the data.
    """
    drawn, fresh = (_flat(images[evenly_spaced(len(images), NEIGHBOURS_OF)]) for images in (samples, unseen))
    known = _flat(training)
    ratio = np.median(_nearest(drawn, known)) / max(float(np.median(_nearest(fresh, known))), 1e-9)
    count = min(len(samples), len(unseen), 4 * NEIGHBOURS_OF)
    drawn, fresh = (_flat(images[evenly_spaced(len(images), count)]) for images in (samples, unseen))
    (of_samples,), (of_real,) = _reach(drawn, (1,)), _reach(fresh, (1,))
    return {
        "nearest_training_ratio": float(ratio),
        "near_duplicates": float((of_samples < SAME**2 * np.median(of_real)).mean()),
    }


def _given(seen: Features) -> Module:
    """Replaces the network from which torchmetrics takes features, because the features are already computed."""
    from torch import nn  # noqa: PLC0415

    given = nn.Identity()
    given.num_features = seen.features.shape[1]
    return given


def _flat(images: Images) -> Array:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _squares(left: Array, right: Array) -> Iterator[tuple[slice, Array]]:
    """Squared Euclidean distances [BLOCK,M], some rows of `left` [N,D] at a time, to `right` [M,D]."""
    norms = np.square(right).sum(axis=1)
    for start in range(0, len(left), BLOCK):
        part = left[start : start + BLOCK]
        squares = np.square(part).sum(axis=1)[:, None] + norms - 2 * part @ right.T
        yield slice(start, start + len(part)), np.maximum(squares, 0)


def _reach(points: Array, neighbours: tuple[int, ...]) -> list[Array]:
    """The squared distance of each of the points [N,D] to its k-th nearest other point, [N] for each k."""
    reach = np.empty((len(neighbours), len(points)), np.float32)
    for rows, squares in _squares(points, points):
        squares[np.arange(len(squares)), np.arange(len(points))[rows]] = np.inf
        kth = min(max(neighbours), len(points) - 1)
        nearest = np.sort(np.partition(squares, kth - 1, axis=1)[:, :kth], axis=1)
        for i, k in enumerate(neighbours):
            reach[i, rows] = nearest[:, min(k, kth) - 1]
    return list(reach)


def _nearest(left: Array, right: Array) -> Array:
    return np.concatenate([np.sqrt(squares.min(axis=1)) for _, squares in _squares(left, right)])


def total_variation(left: NDArray[np.int64], right: NDArray[np.int64], classes: int) -> float:
    """Half the L1 distance between two class histograms, 0 (equal) to 1 (disjoint)."""
    shares = [np.bincount(labels, minlength=classes) / len(labels) for labels in (left, right)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


@dataclass(frozen=True)
class Features:
    """A judge's outputs for images: features float32 [N,D], probabilities float32 [N,K]."""

    features: Array
    probabilities: Array

    def __len__(self) -> int:
        return len(self.features)

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most probable class of each image [N]."""
        result: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return result

    def at(self, rows: Any) -> Features:
        return Features(self.features[rows], self.probabilities[rows])


COLLAPSED = 0.5  # share of the coverage, or of the diversity, of real images


DUPLICATES = 0.2  # share of near duplicates among samples; real images have almost none


POINTS = 500  # points whose distances are computed


def relative_diversity(samples: Array, wanted: Labels | None, real: Array, labels: Labels | None) -> float:
    """Mean distance of two samples of a class over that of two real images of it, averaged over the classes.

    Near 1 for samples as diverse as the data, 0 if all samples of a class are the same.

    Args:
        samples: pixels or features [N,...].
        wanted: the requested classes [N]; without classes all samples are compared.
        real: pixels or features of real images [M,...].
        labels: their classes [M].
    """
    if wanted is None or labels is None:
        wanted, labels = np.zeros(len(samples), np.int64), np.zeros(len(real), np.int64)
    ratios = []
    for label in np.unique(wanted):
        drawn, given = samples[wanted == label], real[labels == label]
        if len(drawn) > 1 and len(given) > 1 and (distance := mean_distance(given)) > 0:
            ratios.append(mean_distance(drawn) / distance)
    return float(np.mean(ratios)) if ratios else 1.0


def mean_distance(points: Array) -> float:
    """Mean Euclidean distance over all pairs of different points [N,...], at most 500 of them."""
    flat = points[philox(0).permutation(len(points))[:POINTS]].reshape(min(len(points), POINTS), -1).astype(np.float64)
    return float(pdist(flat).mean())


def collapsed(metrics: Mapping[str, float]) -> bool:
    """Whether these metrics show a collapsed generator."""
    return (
        metrics["coverage_ratio"] < COLLAPSED
        or metrics["relative_diversity"] < COLLAPSED
        or metrics["near_duplicates"] > DUPLICATES
    )
