"""A convolutional variational autoencoder of images given their class, and the classifier in it by Bayes' rule.

p(x|y) = E_{p(z)} p(x|z,y): the decoder gets the class, so the latent need not contain it. The encoder q(z|x) does not
get the class, so one encoding of an image is enough for all classes (in the model M2 of D. P. Kingma et al.,
"Semi-supervised learning with deep generative models", NeurIPS 2014, it is q(z|x,y), with an encoding for each class).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Likelihood = Literal["bernoulli", "grey", "logistic"]

LOG_VARIANCE = (-8.0, 4.0)  # clamped, so that exp does not overflow
BIN = 1 / 255  # width of a grey level


@dataclass(frozen=True)
class ConditionalVAEConfig:
    """The sizes of the layers, and the likelihood of a pixel.

    Args:
        latent_size: of z.
        channels: at half the image's size; twice as many at a quarter.
        neck: input channels of the dense layers, at a quarter of the size; few, because dense layers have most weights.
        hidden: size of the dense layers.
        likelihood: bernoulli for pixels that are 0 or 1, drawn each time with their grey values as probabilities
            (dynamic binarisation); grey for the cross-entropy of grey values, which is not a likelihood; logistic for
            grey and colour: discretised, with one learned scale per channel (T. Salimans et al., "PixelCNN++", ICLR
            2017, eq. 2).
    """

    latent_size: int = 40
    channels: int = 32
    neck: int = 16
    hidden: int = 256
    likelihood: Likelihood = "bernoulli"

    def build(self, image_shape: tuple[int, int, int], classes: int) -> ConditionalVAE:
        return ConditionalVAE(self, image_shape, classes)


class Residual(nn.Module):
    """x + conv(GELU(conv(GELU(x)))), the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            last := nn.Conv2d(channels, channels, 3, padding=1),
        )
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class ConditionalVAE(nn.Module):
    """Convolutions to a quarter of the image's size, a dense layer to q(z|x), and the same back with the class.

    Args:
        config: the sizes.
        image_shape: (C, H, W), H and W divisible by 4.
        classes: K; 1 for data without labels.

    Raises:
        ValueError: a side is not divisible by 4.
    """

    def __init__(self, config: ConditionalVAEConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError(f"image shape {image_shape}: the VAE needs sides divisible by 4; change --image-size")
        self.latent_size, self.classes, self.likelihood = config.latent_size, classes, config.likelihood
        base, neck = config.channels, config.neck
        coarse = neck * (height // 4) * (width // 4)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, base, 6, stride=2, padding=2),  # space-to-depth and 3x3 in one
            Residual(base),
            nn.GELU(),
            nn.Conv2d(base, 2 * base, 3, stride=2, padding=1),
            Residual(2 * base),
            nn.GELU(),
            nn.Conv2d(2 * base, neck, 1),
            nn.Flatten(),
            nn.Linear(coarse, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, 2 * config.latent_size),
        )
        self.expand = nn.Linear(config.latent_size, config.hidden)
        self.embed = nn.Embedding(classes, config.hidden)
        self.decoder = nn.Sequential(
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, coarse),
            nn.Unflatten(1, (neck, height // 4, width // 4)),
            nn.Conv2d(neck, 2 * base, 1),
            Residual(2 * base),
            nn.Conv2d(2 * base, 4 * base, 1),
            nn.PixelShuffle(2),
            Residual(base),
            nn.GELU(),
            nn.Conv2d(base, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), -3.0), requires_grad=self.likelihood == "logistic")

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in 0..1 [N, C, H, W] -> mean and log variance of q(z|x), both [N, D]."""
        mean, log_variance = self.encoder(2 * x - 1).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, D] and int64 labels [N] -> logits of the mean pixels [N, C, H, W]."""
        logits: Tensor = self.decoder(self.expand(z) + self.embed(labels)).float()
        return logits

    def draw(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, D] and int64 labels [N] -> mean pixels in 0..1 [N, C, H, W]."""
        return self.decode(z, labels).sigmoid()

    def forward(self, x: Tensor, labels: Tensor, samples: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The terms of a bound on log p(x|y), for `samples` (S) draws of z per image from torch's global generator.

        Returns:
            log p(x|z,y) [S, N] in nats, z [S, N, D], mean and log variance of q(z|x) [N, D].
        """
        mean, log_variance = self.encode(x)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn(samples, *mean.shape, device=x.device)
        logits = self.decode(z.flatten(0, 1), labels.repeat(samples))
        log_likelihood = self.log_likelihood(x.repeat(samples, 1, 1, 1), logits).reshape(samples, -1)
        return log_likelihood, z, mean, log_variance

    def log_likelihood(self, x: Tensor, logits: Tensor) -> Tensor:
        """Nats log p(x|z,y) [N] of pixels x in 0..1 [N, C, H, W]; of a grey x, expected over its binarisations."""
        if self.likelihood != "logistic":
            # Not binary_cross_entropy: the exporter writes that as a logarithm of a sigmoid, -inf below -88.
            return (x * logits - F.softplus(logits)).sum(dim=(1, 2, 3))
        centred = (x - logits.sigmoid()) / self.log_scale.exp()
        half = 0.5 * BIN / self.log_scale.exp()
        above, below = centred + half, centred - half
        # log(sigmoid(above) - sigmoid(below)), in a form that does not cancel; the outer levels have open ends.
        inside = above + torch.log(-torch.expm1(-2 * half)) - F.softplus(above) - F.softplus(below)
        darkest, brightest = above - F.softplus(above), -F.softplus(below)
        log_probabilities = torch.where(x > 1 - 0.5 * BIN, brightest, inside)
        return torch.where(x < 0.5 * BIN, darkest, log_probabilities).sum(dim=(1, 2, 3))


class BayesClassifier(nn.Module):
    """p(y|x) by Bayes' rule from the bounds on log p(x|y), z at the mean of q(z|x), classes equally likely.

    The divergence of q(z|x) from the prior is the same for every class, so log p(x|z,y) are the logits. In nats of a
    whole image they are overconfident; a temperature is fitted at export.

    Source: Y. Li, J. Bradshaw, Y. Sharma, "Are generative classifiers more robust to adversarial attacks?", ICML 2019.
    """

    def __init__(self, vae: ConditionalVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> log p(x|z,y) less their mean over the classes, over sqrt(CHW) [N, K]."""
        classes = self.vae.classes
        mean, _ = self.vae.encode(x)
        labels = torch.arange(classes, device=x.device)
        # Every image with every class, by expand, because the exporter cannot repeat along a dynamic axis.
        z = mean[:, None].expand(-1, classes, -1).reshape(-1, self.vae.latent_size)
        y = (labels + torch.zeros_like(mean[:, :1], dtype=torch.int64)).reshape(-1)
        images = x[:, None].expand(-1, classes, -1, -1, -1).reshape(-1, *x.shape[1:])
        logits = self.vae.log_likelihood(images, self.vae.decode(z, y)).reshape(-1, classes)
        # Thousands of nats have a rounding error; the difference from the mean must not look more exact than it is.
        return (logits - logits.mean(dim=1, keepdim=True)) / math.sqrt(x[0].numel())
