"""The textbook networks, trained for a few minutes each, for comparison."""

from __future__ import annotations

from training.data.augmentation import Affine
from training.loops.classifier import CNNRecipe
from training.loops.defects import DefectRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe
from training.networks.cnn import CNNConfig
from training.networks.defect_unet import DefectUNetConfig
from training.networks.gan import GANConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig
from training.recipes.recipe import Recipe
from training.scorer.recipe import ScorerRecipe

VAE = VAERecipe(network=VAEConfig(latent_size=2), epochs=10, batch_size=128, learning_rate=1e-3, patience=None)
SCORER = ScorerRecipe(
    defects=DefectRecipe(DefectUNetConfig(channels=12), steps=2000),
    vae=VAE,
    views=CNNRecipe(
        network=ResidualCNNConfig(channels=24),
        epochs=5,
        learning_rate=3e-3,
        schedule="cosine",
        weight_decay=0.01,
        augment=Affine(rotation=0.08, scale=0.05, shift=0.05),
        patience=None,
    ),
)

CLASSIC = Recipe(
    "classic",
    {
        "cnn": CNNRecipe(
            network=CNNConfig(), epochs=10, batch_size=128, learning_rate=1e-3, schedule="cosine", patience=None
        ),
        "vae": VAE,
        "gan": GANRecipe(
            network=GANConfig(latent_size=64, embedding=16, generator_channels=48, discriminator_channels=32),
            epochs=3,
            batch_size=64,
            generator_learning_rate=2e-4,
            discriminator_learning_rate=4e-4,
        ),
        "scorer": SCORER,
    },
)
