"""The prior of a conditional VAE's latents: a Gaussian for each class, fitted after training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ClassPrior(nn.Module):
    """p(z|y) = N(means[y], factors[y] factors[y]^T): noise [N,D] and labels [N] to latents [N,D].

    Label 0 for data without classes.

    Args:
        means: [K,D].
        factors: lower triangular [K,D,D].
    """

    outputs = ("latents",)

    def __init__(self, means: NDArray[np.float64], factors: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("means", torch.from_numpy(means).float())
        self.register_buffer("factors", torch.from_numpy(factors).float())
        self.means: Tensor
        self.factors: Tensor

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        if labels is None:
            labels = torch.zeros_like(noise[:, 0], dtype=torch.int64)
        return (self.means[labels] + (self.factors[labels] * noise[:, None, :]).sum(dim=2),)


def fit_prior(
    means: NDArray[np.float32], log_variances: NDArray[np.float32], labels: NDArray[np.int64] | None, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Gaussian of each class with the moments of its images' q(z|x): means [K,D] and factors [K,D,D].

    With the given networks, these Gaussians maximise the evidence lower bound of the images. Because a class may have
    few images, D draws of N(0, I), the prior in training, count as additional images of each class.

    Source: a density fitted to the latents of a trained model is that of P. Ghosh et al., "From variational to
    deterministic autoencoders", ICLR 2020, section 4.

    Args:
        means: of q(z|x) [N,D].
        log_variances: of q(z|x) [N,D].
        labels: [N]; None for data without classes.
        classes: K.
    """
    size = means.shape[1]
    labels = np.zeros(len(means), np.int64) if labels is None else labels
    fitted, factors = np.zeros((classes, size)), np.zeros((classes, size, size))
    for label in range(classes):
        mean, variance = means[labels == label].astype(np.float64), np.exp(log_variances[labels == label])
        count = len(mean) + size
        fitted[label] = mean.sum(axis=0) / count
        second = mean.T @ mean + np.diag(variance.sum(axis=0, dtype=np.float64)) + size * np.eye(size)
        factors[label] = np.linalg.cholesky(second / count - np.outer(fitted[label], fitted[label]))
    return fitted, factors
