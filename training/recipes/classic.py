"""The textbook networks, trained for a few minutes each: the reference to compare with."""

from __future__ import annotations

from training.loops.cnn import CNNRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe
from training.networks.cnn import CNNConfig
from training.networks.gan import GANConfig
from training.networks.vae import VAEConfig
from training.recipes.recipe import Recipe

CLASSIC = Recipe(
    name="classic",
    cnn=CNNRecipe(network=CNNConfig(), epochs=10, batch_size=128, learning_rate=1e-3, schedule="cosine", patience=None),
    vae=VAERecipe(network=VAEConfig(latent_size=2), epochs=10, batch_size=128, learning_rate=1e-3, patience=None),
    gan=GANRecipe(
        network=GANConfig(latent_size=64, embedding=16, generator_channels=48, discriminator_channels=32),
        epochs=3,
        batch_size=64,
        generator_learning_rate=2e-4,
        discriminator_learning_rate=4e-4,
    ),
)
