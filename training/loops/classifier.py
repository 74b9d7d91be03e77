"""Training of the classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import update_bn

from training.data import Dataset
from training.loops.batches import Images
from training.loops.minimise import StepRecipe, minimise
from training.loops.precision import to_memory_format
from training.loops.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLEAN = 5000  # training images for the means and variances of batch normalisation
CHUNK = 500  # of these images in a batch


class NetworkConfig(Protocol):
    """The sizes of a classifier: a dataclass that builds the network, from pixels in 0..1 [N,C,H,W] to logits [N,K]."""

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module: ...


@dataclass(frozen=True)
class CNNRecipe(StepRecipe):
    """How a classifier is trained.

    Args:
        network: the sizes of the network.
        epochs: most epochs.
        optimizer: adam (with decoupled weight decay), or sgd with Nesterov's momentum 0.9, which decays weights of
            convolutions and dense layers only.
        patience: epochs without a better validation error before training stops; not with an average.
    """

    network: NetworkConfig
    epochs: int = 10
    optimizer: Literal["adam", "sgd"] = "adam"
    patience: int | None = 3


def cross_entropy(model: nn.Module, x: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    return {"cross_entropy": F.cross_entropy(model(x).float(), labels)}


def train_cnn(fabric: Fabric, dataset: Dataset, recipe: CNNRecipe, run: Run, *, seed: int) -> nn.Module:
    """Minimise the cross-entropy; keep the average of the weights, or the weights with the best validation error."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape, len(dataset.class_names))
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    if recipe.arithmetic != "float32":
        to_memory_format(network)

    def validate(kept: nn.Module) -> dict[str, float]:
        normalise_by(kept, training)
        return dict(zip(("error", "cross_entropy"), evaluate(kept, validation), strict=True))

    return minimise(
        *(cross_entropy, network, optimizer_of(network, recipe), recipe),
        fabric=fabric,
        run=run,
        images=training,
        epochs=recipe.epochs,
        patience=recipe.patience,
        seed=seed,
        validate=validate,
    )


def normalise_by(network: nn.Module, training: Images) -> None:
    """Take the means and variances of batch normalisation from training images without augmentation.

    Augmented images have other statistics than the images that a classifier gets later; at the small learning rates at
    the end of a schedule the network depends on them. Normalisation that a transfer keeps fixed does not change.

    Source: Y. Wu, J. Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, sections 3 and 5.
    """
    network.train()
    if all(module.training for module in network.modules()):
        rows = torch.linspace(0, len(training) - 1, min(len(training), CLEAN)).long()
        update_bn((training.at(part)[0] for part in rows.tensor_split(-(-len(rows) // CHUNK))), network)
    network.eval()


def optimizer_of(network: nn.Module, recipe: CNNRecipe) -> Optimizer:
    """The recipe's optimizer over all weights of `network`."""
    if recipe.optimizer == "adam":
        return AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    # No decay of biases and of batch normalisation's gains (P. Goyal et al., arXiv:1706.02677, 5.3).
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [other for other in network.parameters() if other.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return SGD(groups, recipe.learning_rate, momentum=0.9, nesterov=True)


@torch.no_grad()
def evaluate(network: nn.Module, data: Images) -> tuple[float, float]:
    """The share of wrong classes and the mean cross-entropy (nats)."""
    network.eval()
    wrong = cross_entropy = 0.0
    for images, labels in data.in_order():
        logits = network(images)
        wrong += (logits.argmax(dim=1) != labels).sum().item()
        cross_entropy += F.cross_entropy(logits, labels, reduction="sum").item()
    return wrong / len(data), cross_entropy / len(data)
