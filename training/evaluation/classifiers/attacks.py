"""Adversarial images within a few grey levels of real ones, by the classifier's own gradients (white box, offline).

The graph takes uint8 pixels, so an attack changes whole grey levels: distances are in levels, and an attacked image is
rounded before the exported graph gets it. Accuracy under a stronger or adaptive attack can only be lower.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.data.arrays import Images, philox
from training.graphs.gradient import Differentiable
from training.graphs.session import CHUNK

EPSILONS = (1, 2, 4, 8, 16, 32)  # grey levels of 255; the literature's 0.1 on MNIST is 25.5
STEPS = 20
STEP = 2.5  # total length of all steps in units of epsilon: enough to cross the ball (Madry et al., 2018)


def fgsm(network: Differentiable, images: Images, labels: NDArray[np.int64], epsilon: int) -> Images:
    """One step of `epsilon` grey levels along the sign of the loss's gradient (Goodfellow et al., ICLR 2015, sec. 4).

    Args:
        network: the classifier.
        images: uint8 [N,C,H,W].
        labels: int64 [N], the true classes; the attack increases the cross-entropy with them.
        epsilon: the largest change of a pixel, in grey levels.
    """
    attacked = images.astype(np.float32)
    for part in _parts(len(images)):
        attacked[part] += epsilon * _ascent(network, attacked[part], labels[part])
    return _rounded(attacked, images, epsilon)


def pgd(network: Differentiable, images: Images, labels: NDArray[np.int64], epsilon: int, seed: int = 0) -> Images:
    """Projected gradient ascent from a random start (Madry et al., ICLR 2018, section 2.1): 20 steps, one start.

    Arguments as for `fgsm`; `seed` draws the start, uniform within `epsilon` grey levels.
    """
    pixels, size = images.astype(np.float32), np.float32(STEP * epsilon / STEPS)
    low, high = np.maximum(pixels - epsilon, 0), np.minimum(pixels + epsilon, 255)
    attacked = np.clip(pixels + philox(seed).uniform(-epsilon, epsilon, images.shape), low, high, dtype=np.float32)
    for part in _parts(len(images)):
        for _ in range(STEPS):
            further = attacked[part] + size * _ascent(network, attacked[part], labels[part])
            attacked[part] = np.clip(further, low[part], high[part])
    return _rounded(attacked, images, epsilon)


ATTACKS = {"fgsm": fgsm, "pgd": pgd}


def _parts(size: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]


def _ascent(network: Differentiable, pixels: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """The sign of the gradient of the cross-entropy with the labels, [N,C,H,W]."""
    x = torch.from_numpy(pixels).requires_grad_()
    # Sum, not mean: a small gradient divided by N could underflow.
    loss = F.cross_entropy(network(x), torch.from_numpy(labels), reduction="sum")
    gradient: Tensor
    (gradient,) = torch.autograd.grad(loss, x)
    return np.asarray(gradient.sign().numpy())


def _rounded(attacked: NDArray[np.float32], images: Images, epsilon: int) -> Images:
    """As uint8, at most `epsilon` from `images`."""
    levels = np.rint(attacked).astype(np.int16)
    return np.clip(np.clip(levels, images - np.int16(epsilon), images + np.int16(epsilon)), 0, 255).astype(np.uint8)
