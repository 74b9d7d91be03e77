"""Bounds on log p(x|y) and log p(x) of a latent variable model with classes, in nats, by importance sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.special import logsumexp

from training.data.arrays import Array

FEW = 10  # draws of z per image that decide which classes get all draws
NEGLIGIBLE = 1e-4  # classes with a smaller share of p(x) get no more draws, which lowers the bound by at most that

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Density:
    """A model p(x|y) = E_{p(z|y)} p(x|z,y) with its encoder q(z|x).

    Args:
        encode: images [n,...] -> mean and log variance of q(z|x), both [n,D].
        log_likelihood: one image [...], latents [S,D] and labels [S] -> log p(x|z,y) in nats [S].
        classes: K, equally likely.
        prior: p(z|y), means [K,D] and factors [K,D,D] of covariances; None for N(0, I).
    """

    encode: Callable[[Array], tuple[Array, Array]]
    log_likelihood: Callable[[Array, Array, Labels], Array]
    classes: int
    prior: tuple[Array, Array] | None = None

    def bounds(self, images: Array, samples: int, *, seed: int, progress: str = "") -> NDArray[np.float64]:
        """Lower bounds on log p(x|y) for every class, in nats [N,K], importance-weighted over `samples` draws of z.

        Source: Y. Burda et al., "Importance weighted autoencoders", ICLR 2016, equation 8; the bound rises to
        log p(x|y) with the draws. All classes use the same draws, because q(z|x) does not depend on the class. A class
        whose share of p(x) is negligible after a few draws keeps the bound of these draws.
        """
        means, log_variances = self.encode(images)
        results = np.empty((len(images), self.classes))
        few = min(FEW, samples)
        steps = range(len(images))
        for i in track(steps, progress, console=Console(stderr=True), transient=True) if progress else steps:
            mean, log_variance = means[i].astype(np.float64), log_variances[i].astype(np.float64)
            noise = np.random.Generator(np.random.Philox(key=(seed, i))).standard_normal((samples, len(mean)))
            z = mean + np.exp(0.5 * log_variance) * noise
            # log p(z|y) - log q(z|x): the constants cancel.
            rest = 0.5 * (np.square(noise).sum(axis=1) + log_variance.sum()) + self._log_prior(z)
            weights = self._weights(images[i], z[:few], rest[:, :few], range(self.classes))
            results[i] = logsumexp(weights, axis=1) - np.log(few)
            if samples > few:
                shares = np.exp(results[i] - logsumexp(results[i]))
                likely = np.flatnonzero(shares >= NEGLIGIBLE)
                more = self._weights(images[i], z[few:], rest[likely, few:], likely)
                results[i, likely] = logsumexp(np.hstack([weights[likely], more]), axis=1) - np.log(samples)
        return results

    def _log_prior(self, z: Array) -> Array:
        """Nats log p(z|y) of every class and draw [K,S], less the constant D/2 log 2 pi."""
        if self.prior is None:
            return np.tile(-0.5 * np.square(z).sum(axis=1), (self.classes, 1))
        means, factors = self.prior
        offset = np.einsum("kij,ksj->ksi", np.linalg.inv(factors), z - means[:, None])
        determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        result: Array = -0.5 * np.square(offset).sum(axis=2) - determinants[:, None]
        return result

    def _weights(self, image: Array, z: Array, rest: Array, classes: range | Array) -> Array:
        """Weights log p(x|z,y) p(z|y) / q(z|x) of each of the classes and draws [K,S]."""
        latents = np.tile(z.astype(np.float32), (len(classes), 1))
        labels = np.repeat(np.asarray(classes, np.int64), len(z))
        return self.log_likelihood(image, latents, labels).reshape(len(classes), -1) + rest


def log_marginal(bounds: Array) -> NDArray[np.float64]:
    """The bound on log p(x) in nats [N] from the bounds on log p(x|y) [N,K], with equally likely classes."""
    result: NDArray[np.float64] = logsumexp(bounds, axis=1) - np.log(bounds.shape[1])
    return result
