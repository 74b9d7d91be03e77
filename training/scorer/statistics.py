"""The statistics of an image: each is high for one kind of unusual image.

| name | of | source |
| --- | --- | --- |
| reconstruction | residual nats for each unit of ink | bias correction as in A. Chauhan et al., CVPR 2022 |
| residual_peak | the worst 3 x 3 pixels of the residual | |
| latent | Mahalanobis distance of the VAE's latent mean, by class for an unconditional VAE | |
| features | the same of the classifier's features to the nearest class, less that to all | J. Ren et al., 2021 |
| neighbours | 1 - mean cosine of the features to the nearest five in a coreset | Y. Sun et al., ICML 2022 |
| energy | -log sum exp of the logits | W. Liu et al., NeurIPS 2020 |
| texture | Mahalanobis distance of the classifier's early maps, averaged, to its class | |
| variation | total variation, also unusual when it is low | |
| defects | log odds, summed over the pixels, that something was pasted in | training/loops/defects.py |
| views | distance of a transformation classifier's features, over 16 views | L. Bergman, Y. Hoshen, ICLR 2020 |
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.arrays import Array

NEAREST = 5  # nearest images of the coreset, whose similarity is averaged
SHRINKAGE = 0.02  # of a covariance towards a multiple of the identity
FAINT = 0.02  # smallest mean ink by which a residual is divided

TWO_SIDED = ("variation",)


class RelativeMahalanobis(nn.Module):
    """Squared Mahalanobis distance [N] of points [N,D] to the nearest class mean, less that to the mean of all.

    Source: J. Ren et al., "A simple fix to Mahalanobis distance for improving near-OOD detection", 2021.

    Args:
        points: [n,D], to fit with.
        labels: int [n].
    """

    within: Tensor
    means: Tensor
    overall: Tensor
    centre: Tensor

    def __init__(self, points: Array, labels: NDArray[np.int64]) -> None:
        super().__init__()
        classes, position = np.unique(labels, return_inverse=True)
        means = np.stack([points[labels == label].mean(axis=0) for label in classes])
        within, overall, centre = (
            whitening(points - means[position]),
            whitening(points - points.mean(0)),
            points.mean(0),
        )
        self.register_buffer("within", torch.from_numpy(within))
        self.register_buffer("means", torch.from_numpy(means.astype(np.float32) @ within))
        self.register_buffer("overall", torch.from_numpy(overall))
        self.register_buffer("centre", torch.from_numpy(centre.astype(np.float32) @ overall))

    def forward(self, points: Tensor) -> Tensor:
        to_class = ((points @ self.within)[:, None] - self.means).square().sum(dim=2).amin(dim=1)
        return to_class - (points @ self.overall - self.centre).square().sum(dim=1)


class ClassGaussian(nn.Module):
    """-2 log density [N], up to a constant, of points [N,D] under the normal distribution of their class.

    Args:
        points: [n,D], to fit with.
        labels: int [n] below `classes`; a class without points has the distribution of all.
        classes: number of classes; 1 for one distribution of all points.
    """

    whiten: Tensor
    means: Tensor
    volumes: Tensor

    def __init__(self, points: Array, labels: NDArray[np.int64], classes: int) -> None:
        super().__init__()
        groups = [points[labels == label] for label in range(classes)]
        groups = [group if len(group) > 1 else points for group in groups]
        whiten = np.stack([whitening(group - group.mean(axis=0)) for group in groups])
        means = np.stack([group.mean(axis=0) for group in groups])
        self.register_buffer("whiten", torch.from_numpy(whiten))
        self.register_buffer("means", torch.from_numpy(means.astype(np.float32)))
        self.register_buffer("volumes", torch.from_numpy(-2 * np.linalg.slogdet(whiten)[1].astype(np.float32)))

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        offsets = (points - self.means[labels])[:, None]
        distances: Tensor = (offsets @ self.whiten[labels])[:, 0].square().sum(dim=1) + self.volumes[labels]
        return distances


def whitening(offsets: Array) -> Array:
    """W float32 [D,D] so that |x W|^2 is the squared Mahalanobis distance of an offset x, from centred points [n,D]."""
    covariance = np.cov(offsets.astype(np.float64).T, bias=True).reshape(offsets.shape[1], -1)
    size = len(covariance)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * (np.trace(covariance) / size + 1e-9) * np.eye(size)
    return np.linalg.cholesky(np.linalg.inv(shrunk)).astype(np.float32)


class Statistics(nn.Module):
    """Outputs of the parts' graphs for N images to statistics [N,S] and maps [N,H,W].

    In the latents of an unconditional VAE the classes are separate, so each class has its own normal distribution. A
    conditional VAE gets the class, and its latents have the same distribution for all classes.

    Args:
        measured: outputs of the parts for normal training images, by name: `mean`, and if there are such parts
            `features` and `texture`, `views` [n,V,D], each float32.
        labels: int64 [n], the classes of the training images; zeros for data without classes.
        classes: K; 1 for data without classes.
        conditional: whether the VAE draws by class.
        coreset: rows of the training images to which new images are compared.
    """

    looks: Tensor

    def __init__(
        self,
        measured: Mapping[str, Array],
        labels: NDArray[np.int64],
        classes: int,
        *,
        conditional: bool,
        coreset: NDArray[np.int64],
    ) -> None:
        super().__init__()
        one, self.conditional = np.zeros_like(labels), conditional
        self.latent = ClassGaussian(measured["mean"], *((one, 1) if conditional else (labels, classes)))
        classified = "features" in measured
        self.features = RelativeMahalanobis(measured["features"], labels) if classified else None
        self.texture = ClassGaussian(measured["texture"], labels, classes) if classified else None
        self.views: nn.ModuleList | None = None
        if "views" in measured:
            views = measured["views"]
            self.views = nn.ModuleList(ClassGaussian(views[:, i], one, 1) for i in range(views.shape[1]))
        compared = measured["features" if classified else "mean"][coreset]
        # Buffers give the exported graph its names, so another name would change the digest of every scorer.
        self.register_buffer("looks", F.normalize(torch.from_numpy(compared), dim=1).T.contiguous())
        self.names = (
            *("reconstruction", "residual_peak", "latent", "variation", "defects"),
            *(("features", "neighbours", "energy", "texture") if classified else ()),
            *(("views",) if self.views is not None else ()),
        )

    def forward(self, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Statistics [N,S] in the order of `names`, the residual [N,H,W] in nats, the nearest neighbour's row [N]."""
        x = parts["images"].float() / 255
        residual = divergence(x, parts["pixels"]).sum(dim=1)
        one = torch.zeros_like(parts["mean"][:, 0], dtype=torch.int64)
        label = parts["logits"].argmax(dim=1) if "logits" in parts else one
        columns = {
            "reconstruction": _mean(residual) / (_mean(x) + FAINT),
            "residual_peak": F.avg_pool2d(residual[:, None], 3, stride=1, padding=1).amax(dim=(1, 2, 3)),
            "latent": self.latent(parts["mean"], one if self.conditional else label),
            "variation": _mean((x[:, :, 1:] - x[:, :, :-1]).abs()) + _mean((x[:, :, :, 1:] - x[:, :, :, :-1]).abs()),
            "defects": torch.logsumexp(parts["defects"], dim=(1, 2)),
        }
        similar = F.normalize(parts["features" if "features" in parts else "mean"], dim=1) @ self.looks
        if self.features is not None and self.texture is not None:
            columns["features"] = self.features(parts["features"])
            columns["neighbours"] = 1 - similar.topk(min(NEAREST, similar.shape[1]), dim=1).values.mean(dim=1)
            columns["energy"] = -torch.logsumexp(parts["logits"], dim=1)
            columns["texture"] = self.texture(parts["texture"], label)
        if self.views is not None:
            distances = [view(parts["views"][:, i], one) for i, view in enumerate(self.views)]
            columns["views"] = torch.stack(distances).sum(dim=0)
        return torch.stack([columns[name] for name in self.names], dim=1), residual, similar.argmax(dim=1)


def _mean(values: Tensor) -> Tensor:
    """The mean of each image [N,...], axis by axis: one long sum in float32 would lose small differences."""
    while values.dim() > 1:
        values = values.mean(dim=-1)
    return values


def divergence(x: Tensor, pixels: Tensor) -> Tensor:
    """KL(Bern(x) || Bern(pixels)) in nats of each pixel: the cross-entropy minus the entropy of x."""
    near = 1e-6  # keeps the logarithms finite; x log x is still 0 at x = 0
    pixels = pixels.clamp(near, 1 - near)
    zero = x * (x.clamp(min=1e-12).log() - pixels.log())
    one = (1 - x) * ((1 - x).clamp(min=1e-12).log() - (1 - pixels).log())
    return (zero + one).clamp(min=0)  # below 0 only by rounding
