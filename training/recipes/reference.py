"""The best networks within some megabytes and three quarters of a CPU hour each.

The classifier is a residual network with augmentation and averaged weights. It is trained by SGD with Nesterov's
momentum and a one-cycle schedule (L. N. Smith, N. Topin, "Super-convergence", arXiv:1708.07120) for a fixed number of
epochs, so that nothing is selected and the same seed gives the same weights. The augmentation depends on the images: a
mirrored shoe is a shoe, a mirrored 3 is not a digit.
"""

from __future__ import annotations

from dataclasses import replace

from training.data.augmentation import Affine, Compose, Cutout, Flip, Shift
from training.loops.classifier import CNNRecipe
from training.loops.conditional_vae import ConditionalVAERecipe
from training.loops.defects import DefectRecipe
from training.loops.gan import GANRecipe
from training.loops.vae import VAERecipe
from training.networks.conditional_vae import ConditionalVAEConfig
from training.networks.defect_unet import DefectUNetConfig
from training.networks.gan import GANConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.networks.vae import VAEConfig
from training.recipes.recipe import Recipe
from training.scorer.recipe import ScorerRecipe

# For any images: they may be letters or faces, so none is mirrored or rotated far.
IMAGES = CNNRecipe(
    network=ResidualCNNConfig(channels=32, blocks=2),
    epochs=60,
    batch_size=64,
    learning_rate=0.05,
    schedule="cosine",
    optimizer="sgd",
    weight_decay=5e-4,
    augment=Affine(rotation=0.15, scale=0.1, shear=0.1, shift=0.15),
    ema_half_life=4413.9240919378,
    arithmetic="fastest",
    patience=None,
)

CNN = {
    "mnist": replace(
        IMAGES,
        epochs=55,
        batch_size=128,
        learning_rate=0.1,
        augment=Compose((Affine(rotation=0.26, scale=0.12, shear=0.15, shift=0.2), Cutout(8))),
        ema_half_life=88678.47029485,
    ),
    "fashion-mnist": replace(
        IMAGES,
        epochs=65,
        batch_size=128,
        learning_rate=0.1,
        augment=Compose((Flip(), Shift(2), Cutout(12))),
        ema_half_life=88678.47029485,
    ),
    "digits": replace(IMAGES, augment=Affine(rotation=0.17, scale=0.1, shear=0.1, shift=0.15)),
}

# Grey and colour images use the logistic likelihood; digits are binary except at their edges.
CVAE = ConditionalVAERecipe(network=ConditionalVAEConfig(likelihood="logistic"))
CVAES = {
    "mnist": replace(CVAE, network=ConditionalVAEConfig(likelihood="bernoulli"), epochs=34, iwae_start=0.92),
    "fashion-mnist": replace(
        CVAE, network=ConditionalVAEConfig(likelihood="grey"), epochs=25, classification_weight=5.0
    ),
}

# With few images the discriminator memorises them, so they are augmented; epochs are short, so there are more of them.
GAN = GANRecipe(
    network=GANConfig(latent_size=64, embedding=64, generator_channels=96, discriminator_channels=48),
    epochs=150,
    batch_size=64,
    generator_learning_rate=2e-4,
    discriminator_learning_rate=4e-4,
    ema_half_life=4413.9240919378,
    augment=Affine(scale=0.05, shift=0.12),
    arithmetic="fastest",
    picture_every=5,
)
GAN_OF_MANY = replace(GAN, epochs=26, ema_half_life=44339.235147424, augment=None, picture_every=1)
GANS = {"mnist": GAN_OF_MANY, "fashion-mnist": GAN_OF_MANY}

SCORER = ScorerRecipe(
    defects=DefectRecipe(DefectUNetConfig(channels=16), steps=4000),
    vae=VAERecipe(network=VAEConfig(latent_size=32), epochs=20, learning_rate=2e-3, schedule="cosine", patience=None),
    views=CNNRecipe(
        network=ResidualCNNConfig(channels=32),
        epochs=8,
        learning_rate=3e-3,
        schedule="cosine",
        weight_decay=0.01,
        augment=Affine(rotation=0.08, scale=0.05, shift=0.05),
        patience=None,
    ),
)

ANY = Recipe("reference", {"cnn": IMAGES, "cvae": CVAE, "gan": GAN, "scorer": SCORER})

REFERENCE = replace(
    ANY,
    per_dataset={
        dataset: ANY.changed(cnn=cnn, cvae=CVAES.get(dataset, CVAE), gan=GANS.get(dataset, GAN))
        for dataset, cnn in CNN.items()
    },
)
