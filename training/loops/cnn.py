"""Training of the classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from training.data import Dataset
from training.loops.augmentation import Affine, unchanged
from training.loops.batches import Images
from training.loops.epochs import Epochs
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.networks.cnn import CNN, CNNConfig
from training.networks.residual_cnn import ResidualCNN, ResidualCNNConfig
from training.run import Run


@dataclass(frozen=True)
class CNNRecipe:
    network: CNNConfig | ResidualCNNConfig
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    augment: Affine | None = None
    patience: int | None = 3


def train_cnn(fabric: Fabric, dataset: Dataset, recipe: CNNRecipe, run: Run, *, seed: int) -> CNN | ResidualCNN:
    """Minimise the cross-entropy with Adam (weights decoupled from their decay); the best validation error is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape, len(dataset.class_names))
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    model, steps = fabric.setup(network, optimizer)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    augment = recipe.augment or unchanged
    with Epochs(
        run,
        fabric,
        training,
        state={"network": network, "optimizer": optimizer},
        keep=network,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        patience=recipe.patience,
        seed=seed,
    ) as epochs:
        for _ in epochs:
            model.train()
            for images, labels in epochs.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, epochs.progress))
                loss = F.cross_entropy(model(augment(images)), labels)
                optimizer.zero_grad()
                fabric.backward(loss)
                steps.step()
                epochs.record(cross_entropy=loss)
            error, cross_entropy = evaluate(network, validation)
            epochs.finish(
                {"error": error, "cross_entropy": cross_entropy},
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=(error, cross_entropy),
            )
    return network.cpu().eval()


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
