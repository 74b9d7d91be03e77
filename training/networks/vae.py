"""The variational autoencoder with one hidden layer on each side.

Source: D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014 (appendix C: MLP encoder with a diagonal
Gaussian, MLP decoder with Bernoulli pixels), with ReLU for tanh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class VAEConfig:
    latent_size: int = 2
    hidden: int = 256

    def build(self, image_shape: tuple[int, int, int]) -> VAE:
        return VAE(self, image_shape)


class VAE(nn.Module):
    """Pixels - hidden - latent - hidden - pixels.

    Args:
        config: the sizes of the layers.
        image_shape: (C, H, W), any size.
    """

    def __init__(self, config: VAEConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent_size = config.latent_size
        pixels = math.prod(image_shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, config.hidden), nn.ReLU())
        self.mean = nn.Linear(config.hidden, config.latent_size)
        self.log_variance = nn.Linear(config.hidden, config.latent_size)
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_size, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, pixels),
            nn.Unflatten(1, image_shape),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in 0..1 [N, C, H, W] -> mean and log variance of q(z|x), both [N, D]."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Latents [N, D] -> Bernoulli logits of the pixels [N, C, H, W]."""
        logits: Tensor = self.decoder(z)
        return logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [N, C, H, W] -> logits of one reconstruction [N, C, H, W], mean [N, D], log variance [N, D].

        z = mean + sigma * noise (the reparameterisation, section 2.4); the noise is torch's global one.
        """
        mean, log_variance = self.encode(x)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decode(z), mean, log_variance
