"""A bundle's graphs as PyTorch modules around the networks: they take uint8 pixels and contain every constant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.arrays import Array
from training.networks.class_prior import ClassPrior
from training.networks.conditional_vae import ConditionalVAE


class Classify(nn.Module):
    """Images uint8 [N,C,H,W] to logits and probabilities [N,K], class activations and prediction sets.

    If the maps [N,D,h,w] of a network (its `features`) are averaged into its last layer (its `classify`), it also has a
    class activation [N,K,h,w]: the sum of the maps, each times its weight for the class. Its mean over h and w plus the
    bias is the logit (B. Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, equation 2).

    With a threshold there is a prediction set uint8 [N,K]: 1 for each class with at least that probability.

    Args:
        cnn: the network.
        temperature: divides the logits (C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 9).
        threshold: see `training.metrics.conformal`.
    """

    def __init__(self, cnn: Any, temperature: float = 1.0, threshold: float | None = None) -> None:
        super().__init__()
        self.cnn, self.temperature, self.threshold = cnn, temperature, threshold
        self.explained = hasattr(cnn, "features") and isinstance(getattr(cnn, "classify", None), nn.Linear)
        self.outputs = (
            *("logits", "probabilities"),
            *(("class_activation",) if self.explained else ()),
            *(("prediction_set",) if threshold is not None else ()),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.float() / 255
        maps = self.cnn.features(x) if self.explained else None
        logits = self.cnn(x) if maps is None else self.cnn.classify(maps.mean(dim=(2, 3)))
        if self.temperature != 1:
            logits = logits / self.temperature
        probabilities = logits.softmax(dim=1)
        results = [logits, probabilities]
        if maps is not None:
            weights = self.cnn.classify.weight / self.temperature
            results.append(F.conv2d(maps, weights[:, :, None, None]))
        if self.threshold is not None:
            results.append((probabilities >= self.threshold).to(torch.uint8))
        return tuple(results)

    def recompute_steps(self, actual: Mapping[str, Array]) -> dict[str, Array]:
        """The prediction set at the probabilities of the exported file, because it jumps at the threshold."""
        if self.threshold is None:
            return {}
        return {"prediction_set": actual["probabilities"] >= np.float32(self.threshold)}


class Encode(nn.Module):
    """Images uint8 [N,C,H,W] to mean and log variance [N,D] of q(z|x)."""

    outputs = ("mean", "log_variance")

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.vae.encode(images.float() / 255)
        return mean, log_variance


class Decode(nn.Module):
    """Latents [N,D] to images uint8 and pixels in 0..1 [N,C,H,W], by a VAE's decoder."""

    outputs = ("images", "pixels")

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        return _rounded(self.vae.decode(latents).sigmoid())


class Generate(nn.Module):
    """Latents [N,D] and labels [N] to images uint8 and pixels in 0..1 [N,C,H,W], by a network that draws by class.

    Label 0 for data without classes.
    """

    outputs = ("images", "pixels")

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if labels is None:
            labels = torch.zeros_like(latents[:, 0], dtype=torch.int64)
        return _rounded(self.generator.draw(latents, labels))


class Discriminate(nn.Module):
    """Images uint8 [N,C,H,W] and labels [N] to log_ratio [N]: the calibrated logit that an image is real.

    Args:
        discriminator: its scores are high for real images.
        slope, offset: turn scores into logits (logistic regression on images that trained neither network).
    """

    outputs = ("log_ratio",)

    def __init__(self, discriminator: Any, slope: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.discriminator, self.slope, self.offset = discriminator, slope, offset

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        if labels is None:
            labels = torch.zeros_like(images[:, 0, 0, 0], dtype=torch.int64)
        return (self.slope * self.discriminator(images.float() / 255, labels) + self.offset,)


class LogJoint(nn.Module):
    """Images uint8 [N,C,H,W] to log_joint [N,K]: a lower bound on log p(x, y) in nats, classes equally likely.

    The bound is importance-weighted over draws z of q(z|x) (Y. Burda et al., "Importance weighted autoencoders", ICLR
    2016, equation 8). The noise of the draws is a constant of the graph, so that equal images have equal bounds.

    Args:
        vae: p(x|z,y) and q(z|x).
        prior: p(z|y).
        noise: of the draws, standard normal [S,D].
    """

    outputs = ("log_joint",)

    def __init__(self, vae: ConditionalVAE, prior: ClassPrior, noise: Tensor) -> None:
        super().__init__()
        self.vae = vae
        inverse = torch.linalg.inv(prior.factors.double())
        # z - mean in coordinates in which p(z|y) is N(0, I), as one matrix product for all classes.
        self.register_buffer("scales", inverse.flatten(0, 1).T.float().contiguous())  # [D, K D]
        self.register_buffer("offsets", (inverse @ prior.means.double()[:, :, None]).flatten().float())  # [K D]
        self.register_buffer("normalisers", torch.linalg.slogdet(inverse).logabsdet.float())  # [K]
        self.register_buffer("noise", noise)
        self.scales: Tensor
        self.offsets: Tensor
        self.normalisers: Tensor
        self.noise: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor]:
        vae, (draws, size) = self.vae, self.noise.shape
        classes = vae.classes
        x = images.float() / 255
        mean, log_variance = vae.encode(x)
        z = mean[:, None] + torch.exp(0.5 * log_variance)[:, None] * self.noise  # [N, S, D]
        log_posterior = -0.5 * (self.noise.square().sum(dim=1) + log_variance.sum(dim=1, keepdim=True))  # [N, S]
        centred = (z @ self.scales - self.offsets).reshape(-1, draws, classes, size)
        log_prior = self.normalisers - 0.5 * centred.square().sum(dim=3)  # [N, S, K]; D/2 log 2 pi cancels
        # Every draw with every class, by expand, because the exporter cannot repeat along a dynamic axis.
        labels = torch.arange(classes, device=x.device) + torch.zeros_like(log_posterior, dtype=torch.int64)[:, :, None]
        latents = z[:, :, None].expand(-1, -1, classes, -1).reshape(-1, size)
        pixels = x[:, None, None].expand(-1, draws, classes, -1, -1, -1).reshape(-1, *x.shape[1:])
        given = vae.log_likelihood(pixels, vae.decode(latents, labels.reshape(-1))).reshape(-1, draws, classes)
        weights = given + log_prior - log_posterior[:, :, None]
        # Not logsumexp, which an exporter may write without the maximum: e to thousands of nats overflows.
        most = weights.amax(dim=1)
        return (most + (weights - most[:, None]).exp().mean(dim=1).log() - math.log(classes),)


def _rounded(pixels: Tensor) -> tuple[Tensor, Tensor]:
    pixels = pixels.clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8), pixels


Graph = Classify | Encode | Decode | Generate | Discriminate | LogJoint | ClassPrior
