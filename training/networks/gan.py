"""A conditional convolutional GAN: generator with conditional batch normalisation, projection discriminator.

Sources: A. Radford et al., "Unsupervised representation learning with deep convolutional GANs", ICLR 2016 (DCGAN);
T. Miyato et al., "Spectral normalization for GANs", ICLR 2018; T. Miyato, M. Koyama, "cGANs with projection
discriminator", ICLR 2018 (equation 3). Sub-pixel convolutions (W. Shi et al., CVPR 2016) stand in for transposed ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class GANConfig:
    latent_size: int = 64
    embedding: int = 64
    generator_channels: int = 64
    discriminator_channels: int = 32
    spectral_norm: bool = True

    def build_generator(self, image_shape: tuple[int, int, int], classes: int) -> Generator:
        return Generator(self, image_shape, classes)

    def build_discriminator(self, image_shape: tuple[int, int, int], classes: int) -> Discriminator:
        return Discriminator(self, image_shape, classes)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain 1 + gamma(e) and bias beta(e) come from a condition e."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        gamma, beta = self.affine(e)[:, :, None, None].chunk(2, dim=1)
        result: Tensor = self.normalise(h) * (1 + gamma) + beta
        return result


class GeneratorBlock(nn.Module):
    """A residual convolution after conditional normalisation."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.normalise = ConditionalBatchNorm(channels, condition)
        self.convolve = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        result: Tensor = h + self.convolve(F.leaky_relu(self.normalise(h, e), 0.2))
        return result


class Generator(nn.Module):
    """Latents and labels to pixels.

    Args:
        config: the sizes of the layers; `generator_channels` (even) at a quarter of the size.
        image_shape: (C, H, W), H = W divisible by 4.
        classes: K; 1 for data without labels.

    Raises:
        ValueError: the side is not divisible by 4, or the image is not square.
    """

    def __init__(self, config: GANConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height != width or height % 4:
            raise ValueError(
                f"image shape {image_shape}: the GAN needs squares with a side divisible by 4; change --image-size"
            )
        self.latent_size = config.latent_size
        base = config.generator_channels
        condition = config.latent_size + config.embedding
        self.embed = nn.Embedding(classes, config.embedding)
        self.project = nn.Sequential(
            nn.Linear(condition, base * (height // 4) * (width // 4)),
            nn.Unflatten(1, (base, height // 4, width // 4)),
        )
        self.coarse = GeneratorBlock(base, condition)
        self.enlarge = nn.Sequential(nn.Conv2d(base, 2 * base, 1), nn.PixelShuffle(2))
        self.fine = GeneratorBlock(base // 2, condition)
        self.normalise = ConditionalBatchNorm(base // 2, condition)
        # The last layer goes from half size to full size: a layer at full size would cost as much as all others.
        sub_pixel = nn.Conv2d(base // 2, 4 * channels, 3, padding=1, bias=False)
        self.paint = nn.Sequential(sub_pixel, nn.PixelShuffle(2))
        # The four sub-pixels start equal (ICNR, A. Aitken et al., arXiv:1707.02937), which avoids checkerboards.
        with torch.no_grad():
            sub_pixel.weight.copy_(sub_pixel.weight[::4].repeat_interleave(4, dim=0))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, D] and int64 labels [N] -> pixels in 0..1 [N, C, H, W]."""
        e = torch.cat([z, self.embed(labels)], dim=1)
        h = self.project(e)
        h = self.fine(self.enlarge(self.coarse(h, e)), e)
        return torch.sigmoid(self.paint(F.leaky_relu(self.normalise(h, e), 0.2)))

    def draw(self, z: Tensor, labels: Tensor) -> Tensor:
        """The same, under the name that all generators share."""
        return self(z, labels)  # type: ignore[no-any-return]


class GAN(nn.Module):
    """A trained generator and its discriminator."""

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.latent_size = generator.latent_size

    def draw(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, D] and int64 labels [N] -> pixels in 0..1 [N, C, H, W]."""
        return self.generator.draw(z, labels)


class DiscriminatorBlock(nn.Module):
    """h + convolution(LeakyReLU(h))."""

    def __init__(self, convolve: nn.Module) -> None:
        super().__init__()
        self.convolve = convolve

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = h + self.convolve(F.leaky_relu(h, 0.2))
        return result


class Discriminator(nn.Module):
    """Pixels and labels to one score, o(h) + <h, V_y>; every layer has spectral norm 1, unless the config disables it.

    Args:
        config: the sizes of the layers.
        image_shape: (C, H, W), H and W divisible by 4.
        classes: K; 1 for data without labels.
    """

    def __init__(self, config: GANConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        base, features = config.discriminator_channels, 4 * config.discriminator_channels
        reduced = -(-height // 8) * -(-width // 8)
        norm: Callable[[nn.Module], nn.Module] = spectral_norm if config.spectral_norm else nn.Identity()
        self.layers = nn.Sequential(
            norm(nn.Conv2d(channels, base, 6, stride=2, padding=2)),
            DiscriminatorBlock(norm(nn.Conv2d(base, base, 3, padding=1))),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(base, 2 * base, 4, stride=2, padding=1)),
            DiscriminatorBlock(norm(nn.Conv2d(2 * base, 2 * base, 3, padding=1))),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(2 * base, 2 * base, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            norm(nn.Linear(2 * base * reduced, features)),
            nn.LeakyReLU(0.2),
        )
        self.score = norm(nn.Linear(features, 1))
        embed = nn.Embedding(classes, features)
        if not config.spectral_norm:
            nn.init.normal_(embed.weight, std=features**-0.5)  # the same scale as the initial score
        self.embed = norm(embed)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] and int64 labels [N] -> scores [N], high for real."""
        h = self.layers(2 * x - 1)
        scores: Tensor = self.score(h).squeeze(1) + (h * self.embed(labels)).sum(dim=1)
        return scores
