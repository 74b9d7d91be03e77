"""A bundle's graphs as PyTorch modules around the networks: uint8 pixels in, every constant inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classify(nn.Module):
    """Images uint8 [N,C,H,W] to logits and probabilities [N,K], and to what explains and bounds them.

    A network whose maps [N,D,h,w] (its `features`) are averaged into its last layer (its `classify`) has a class
    activation [N,K,h,w] too: each map weighed by its weight for the class, so that the mean over h and w plus the bias
    is the logit (B. Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, equation 2).

    With a threshold there is a prediction set uint8 [N,K]: 1 for each class of at least that probability.

    Args:
        cnn: the network.
        temperature: divides the logits (C. Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 9).
        threshold: see `training.evaluation.conformal`.
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

    Label 0 where data have no classes.
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
        slope, offset: make scores logits (logistic regression on images of neither network's training).
    """

    outputs = ("log_ratio",)

    def __init__(self, discriminator: Any, slope: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.discriminator, self.slope, self.offset = discriminator, slope, offset

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        if labels is None:
            labels = torch.zeros_like(images[:, 0, 0, 0], dtype=torch.int64)
        return (self.slope * self.discriminator(images.float() / 255, labels) + self.offset,)


def _rounded(pixels: Tensor) -> tuple[Tensor, Tensor]:
    pixels = pixels.clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8), pixels


class Score(nn.Module):
    """Images uint8 [N,C,H,W] to score [N] in nats, conformal p-value [N] and residual [N,H,W].

    The residual of a pixel is KL(Bern(x) || Bern(x_hat)), x_hat decoded from the mean of q(z|x): the cross-entropy less
    the entropy of x itself, which no decoder can avoid (bias correction as in Chauhan et al., CVPR 2022). Without
    `calibration` scores the p-value is left out.
    """

    def __init__(self, vae: Any, calibration: Tensor | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.calibration: Tensor | None
        self.register_buffer("calibration", calibration)
        self.outputs = ("score", "residual") if calibration is None else ("score", "p_value", "residual")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.float() / 255
        logits = self.vae.decode(self.vae.encode(x)[0])
        # softplus, because the exporter writes logsigmoid as Log(Sigmoid), which is -inf below -88.
        cross_entropy = F.softplus(logits) - x * logits
        # x log x is exactly 0 at x = 0, for the clamp keeps the logarithm finite.
        entropy = -(x * x.clamp(min=1e-12).log() + (1 - x) * (1 - x).clamp(min=1e-12).log())
        residual = (cross_entropy - entropy).sum(dim=1).clamp(min=0)  # below 0 only by rounding
        score = residual.sum(dim=(1, 2))
        if self.calibration is None:
            return score, residual
        return score, conformal_p_value(score, self.calibration), residual


def conformal_p_value(score: Tensor, calibration: Tensor) -> Tensor:
    """(1 + #{calibration >= score}) / (n + 1) for each score [N] (Vovk et al., 2005; Bates et al., 2023, eq. 2)."""
    at_least = (calibration >= score[:, None]).sum(dim=1)
    return (1 + at_least).float() / (len(calibration) + 1)


Graph = Classify | Encode | Decode | Generate | Discriminate | Score
