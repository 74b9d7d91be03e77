"""The evidence lower bound of a VAE and its terms, from the exported graphs, in nats per image.

Binarised images are drawn once, from a fixed seed, so that figures of one data set are comparable. Clipped pixel
probabilities are valid Bernoulli probabilities, so the bounds are still bounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from services.inference.bundle import Bundle
from training.data.arrays import Array, Images, Labels, binarised, philox
from training.graphs.inference import Prior, decode, encode, prior

CLIP = 1e-7  # keeps log(pixel) finite if the decoder saturates
ACTIVE = 0.01  # a latent counts as used if its mean has this variance over the data (Burda et al., 2016, 5.1)
BIN = 1 / 255


def elbo_metrics(bundle: Bundle, images: Images, labels: Labels | None = None, *, seed: int = 0) -> dict[str, float]:
    """The negative evidence lower bound on log p(x), or log p(x|y), and its two terms, with one draw of z per image.

    Source: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014, equation 10. Also the mean squared
    error of pixels decoded from the posterior means, and the number of used latents.
    """
    if "binarised" in bundle.manifest.constants:
        images = binarised(images, seed)
    mean, log_variance = encode(bundle, images)
    noise = philox(seed).standard_normal(mean.shape, dtype=np.float32)
    drawn = decode(bundle, mean + np.exp(0.5 * log_variance) * noise, labels)["pixels"]
    reconstruction = -log_probability(images, drawn, bundle)
    if "prior" in bundle.manifest.graphs:
        classes = np.zeros(len(images), np.int64) if labels is None else labels
        divergence = kl_by_class(mean, log_variance, prior(bundle), classes)
    else:
        divergence = gaussian_kl(mean, log_variance)
    best = decode(bundle, mean, labels)["pixels"]
    return {
        "negative_elbo": float(reconstruction.mean() + divergence.mean()),
        "reconstruction_loss": float(reconstruction.mean()),
        "kl_divergence": float(divergence.mean()),
        "reconstruction_error": float(np.square(best - images.astype(np.float32) / 255).mean()),
        "active_units": float((mean.var(axis=0) > ACTIVE).sum()),
    }


def grey_bounds(images: Images, mean_image: Array) -> dict[str, float]:
    """Reference values for a cross-entropy of grey pixels, in nats per image.

    The targets are grey values, not draws of a Bernoulli variable, so the cross-entropy is not a likelihood. The loss
    of a perfect decoder is `pixel_entropy`; the loss of the training mean `mean_image` [C,H,W] is `mean_image_loss`.
    """
    return {
        "pixel_entropy": float(cross_entropy(images, images.astype(np.float32) / 255).mean()),
        "mean_image_loss": float(cross_entropy(images, mean_image[None]).mean()),
    }


def has_likelihood(bundle: Bundle) -> bool:
    """Whether the model has a likelihood: for binary pixels, and for grey pixels with a learned scale."""
    return bool({"binarised", "log_scale/0"} & bundle.manifest.constants.keys())


def log_probability(images: Images, pixels: Array, bundle: Bundle) -> NDArray[np.float64]:
    """Nats log p(x|z,y) [N] of images uint8 [N,C,H,W] (or [1,C,H,W]); the decoder's mean pixels are `pixels`."""
    constants = bundle.manifest.constants
    if "log_scale/0" not in constants:
        return -cross_entropy(images, pixels)
    x, pixels = images.astype(np.float64) / 255, pixels.astype(np.float64)
    scale = np.exp([constants[f"log_scale/{channel}"] for channel in range(x.shape[1])])[:, None, None]
    each = log_bin_mass((x - pixels) / scale, 0.5 * BIN / scale, x < 0.5 * BIN, x > 1 - 0.5 * BIN)
    return np.asarray(each.sum(axis=(1, 2, 3)))


def log_bin_mass(centred: Array, half: Array, darkest: Array, brightest: Array) -> NDArray[np.float64]:
    """log(sigmoid(centred + half) - sigmoid(centred - half)) in nats: the discretised logistic likelihood of a pixel.

    The outer levels have open ends (T. Salimans et al., "PixelCNN++", ICLR 2017, section 2.1). With b above a,
    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference cancels and no mass is 0, so that
    a bound on log p(x) stays a bound however wrong the decoder is.

    Args:
        centred: level less mean, over the scale.
        half: half the width of a level over the scale, above 0.
        darkest: which levels are open below.
        brightest: which levels are open above.
    """
    upper, lower = log_expit(centred + half), log_expit(half - centred)
    inside = upper + lower + np.log(-np.expm1(-2 * half))
    return np.asarray(np.where(darkest, upper, np.where(brightest, lower, inside)), np.float64)


def cross_entropy(images: NDArray[np.uint8], pixels: Array) -> NDArray[np.float64]:
    """Number of pixels times mean binary cross-entropy, in nats per image [N], of `pixels` and `images` in 0..1."""
    x = images.reshape(len(images), -1).astype(np.float64) / 255
    p = np.clip(pixels.reshape(len(pixels), -1).astype(np.float64), CLIP, 1 - CLIP)
    result: NDArray[np.float64] = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=1)
    return result


def gaussian_kl(mean: Array, log_variance: Array) -> NDArray[np.float64]:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats [N] (Kingma & Welling, 2014, appendix B)."""
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    result: NDArray[np.float64] = 0.5 * (np.square(mean) + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    return result


def kl_by_class(mean: Array, log_variance: Array, prior: Prior, labels: Labels) -> NDArray[np.float64]:
    """KL(N(mean, exp(log_variance)) || p(z|y)) in nats [N], p(z|y) as `prior` gives it, y the labels [N]."""
    mean, log_variance = mean.astype(np.float64), log_variance.astype(np.float64)
    result = np.empty(len(mean))
    for label in np.unique(labels):
        rows = labels == label
        inverse = np.linalg.inv(prior[1][label])
        # In coordinates in which p(z|y) is N(0, I), the covariance of q(z|x) is not diagonal.
        squares = np.square((mean[rows] - prior[0][label]) @ inverse.T).sum(axis=1)
        squares += np.exp(log_variance[rows]) @ np.square(inverse).sum(axis=0)
        result[rows] = 0.5 * (squares - log_variance[rows].sum(axis=1) - mean.shape[1]) - np.linalg.slogdet(inverse)[1]
    return result
