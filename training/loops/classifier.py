"""Training of the classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import update_bn

from training.data import Dataset
from training.data.augmentation import Augmentation, unchanged
from training.loops.batches import Images
from training.loops.ema import Average
from training.loops.epochs import Epochs, Stateful
from training.loops.precision import Choice, choose, lay_out, rounding
from training.loops.run import Run
from training.loops.schedule import Schedule, learning_rate, set_learning_rate

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric

CLEAN = 5000  # training images for the means and variances of batch normalisation
CHUNK = 500  # of these images in a batch


class NetworkConfig(Protocol):
    """The sizes of a classifier: a dataclass that builds the network, from pixels in 0..1 [N,C,H,W] to logits [N,K]."""

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module: ...


@dataclass(frozen=True)
class CNNRecipe:
    """How a classifier is trained.

    Args:
        network: the sizes of the network.
        epochs: most epochs.
        batch_size: images in a step.
        learning_rate: the peak of the schedule.
        schedule: see `learning_rate` in training/loops/schedule.py.
        optimizer: adam (with decoupled weight decay), or sgd with Nesterov's momentum 0.9.
        weight_decay: of all weights with adam; with sgd of convolution and dense weights only.
        augment: changes every training batch.
        average: decay of a moving average of the weights; the average is validated, and kept at the end. Without it,
            the weights with the best validation error are kept.
        arithmetic: float32, bfloat16, or fastest: bfloat16 if the processor has instructions for it. Validation is
            float32.
        patience: epochs without a better validation error before training stops; not with an average.
    """

    network: NetworkConfig
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    augment: Augmentation | None = None
    average: float | None = None
    arithmetic: Choice = "float32"
    patience: int | None = 3


def train_cnn(fabric: Fabric, dataset: Dataset, recipe: CNNRecipe, run: Run, *, seed: int) -> nn.Module:
    """Minimise the cross-entropy; keep the average of the weights, or the weights with the best validation error."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape, len(dataset.class_names))
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    arithmetic = choose(fabric, run, recipe.arithmetic)
    if recipe.arithmetic != "float32":
        lay_out(network)
    optimizer = optimizer_of(network, recipe)
    model, steps = fabric.setup(network, optimizer)
    average = None if recipe.average is None else Average(network, recipe.average)
    kept = network if average is None else average.network
    augment = recipe.augment or unchanged
    state: dict[str, Stateful] = {"network": network, "optimizer": optimizer}
    if average is not None:
        state["average"] = average
    with Epochs(
        run,
        fabric,
        training,
        state=state,
        keep=kept,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=recipe.patience,
        seed=seed,
    ) as epochs:
        for _ in epochs:
            model.train()
            for images, labels in epochs.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, epochs.progress))
                augmented = augment(images)
                with rounding(fabric.device, arithmetic):
                    logits = model(augmented)
                loss = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad()
                fabric.backward(loss)
                steps.step()
                if average is not None:
                    average.update(network)
                epochs.record(cross_entropy=loss)
            normalise_by(kept, training)
            error, cross_entropy = evaluate(kept, validation)
            epochs.finish(
                {"error": error, "cross_entropy": cross_entropy},
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=(error, cross_entropy) if average is None else None,
            )
    return lay_out(kept, torch.contiguous_format).cpu().eval()


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
