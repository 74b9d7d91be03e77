"""The best classifier in a megabyte and three quarters of a CPU hour: a residual network, augmented, averaged.

SGD with Nesterov's momentum and a one-cycle schedule (L. N. Smith, N. Topin, "Super-convergence", arXiv:1708.07120)
after a fixed number of epochs, so that nothing is selected and the same seed gives the same weights. What helps against
overfitting depends on the images: a mirrored shoe is a shoe, a mirrored 3 is no digit.
"""

from __future__ import annotations

from dataclasses import replace

from training.loops.augmentation import Affine, Cutout, Flip, InTurn, Shift
from training.loops.cnn import CNNRecipe
from training.networks.residual_cnn import ResidualCNNConfig
from training.recipes.recipe import Recipe

# Any images: they may be letters or faces, so none is mirrored or turned far.
IMAGES = CNNRecipe(
    network=ResidualCNNConfig(channels=32, blocks=2),
    epochs=60,
    batch_size=64,
    learning_rate=0.05,
    schedule="cosine",
    optimizer="sgd",
    weight_decay=5e-4,
    augment=Affine(rotation=0.15, scale=0.1, shear=0.1, shift=0.15),
    average=0.99,
    arithmetic="fastest",
    patience=None,
)

CNN = {
    "mnist": replace(
        IMAGES,
        epochs=55,
        batch_size=128,
        learning_rate=0.1,
        augment=InTurn((Affine(rotation=0.26, scale=0.12, shear=0.15, shift=0.2), Cutout(8))),
        average=0.999,
    ),
    "fashion-mnist": replace(
        IMAGES,
        epochs=65,
        batch_size=128,
        learning_rate=0.1,
        augment=InTurn((Flip(), Shift(2), Cutout(12))),
        average=0.999,
    ),
    "digits": replace(IMAGES, augment=Affine(rotation=0.17, scale=0.1, shear=0.1, shift=0.15)),
}

REFERENCE = Recipe(
    name="reference",
    cnn=IMAGES,
    special={dataset: Recipe(name="reference", cnn=cnn) for dataset, cnn in CNN.items()},
)
