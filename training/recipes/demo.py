"""All three networks in about a minute on two cores, for the 1,797 digits that come with scikit-learn."""

from __future__ import annotations

from training.data.augmentation import Affine
from training.loops.classifier import CNNRecipe
from training.loops.defects import DefectRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe
from training.networks.defect_unet import DefectUNetConfig
from training.networks.gan import GANConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig
from training.recipes.recipe import Recipe
from training.scorer.recipe import ScorerRecipe

VAE = VAERecipe(
    network=VAEConfig(latent_size=16),
    epochs=120,
    batch_size=64,
    learning_rate=2e-3,
    schedule="cosine",
    augment=Affine(rotation=0.1, scale=0.05, shear=0.05, shift=0.05),
    patience=None,
    picture_every=50,
)

DEMO = Recipe(
    "demo",
    {
        "cnn": CNNRecipe(
            network=ResidualCNNConfig(channels=24),
            epochs=25,
            batch_size=64,
            learning_rate=3e-3,
            schedule="cosine",
            weight_decay=0.01,
            augment=Affine(rotation=0.17, scale=0.1, shear=0.1, shift=0.15),
            patience=None,
        ),
        "vae": VAE,
        "gan": GANRecipe(
            network=GANConfig(latent_size=32, embedding=16, generator_channels=32, discriminator_channels=16),
            epochs=60,
            batch_size=64,
            generator_learning_rate=2e-3,
            discriminator_learning_rate=2e-3,
            ema_half_life=4413.9240919378,
            augment=Affine(scale=0.05, shift=0.12),
            picture_every=20,
        ),
        "scorer": ScorerRecipe(
            defects=DefectRecipe(DefectUNetConfig(channels=8), steps=300),
            vae=VAE,
            views=CNNRecipe(
                network=ResidualCNNConfig(channels=16),
                epochs=2,
                learning_rate=3e-3,
                schedule="cosine",
                weight_decay=0.01,
                augment=Affine(rotation=0.08, scale=0.05, shift=0.05),
                patience=None,
            ),
            coreset_size=200,
        ),
    },
)
