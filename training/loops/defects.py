"""Training of the defect network, on normal images with pasted pieces."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from training.data import Dataset
from training.data.cut_paste import cut_paste
from training.loops.batches import Images
from training.loops.minimise import StepRecipe, minimise
from training.loops.precision import Choice, to_memory_format
from training.loops.run import Run
from training.loops.schedule import Schedule
from training.networks.defect_unet import DefectUNet, DefectUNetConfig, pixel_loss

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class DefectRecipe(StepRecipe):
    """How the defect network is trained.

    Args:
        network: the size of the network.
        steps: approximate number of steps, in whole epochs, independent of the number of images.
    """

    network: DefectUNetConfig
    _: KW_ONLY
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-3
    ema_half_life: float = 4413.9240919378
    arithmetic: Choice = "fastest"


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    spoilt, changed = cut_paste(images)
    return {"cross_entropy": pixel_loss(model(spoilt).float(), changed)}


def train_defects(fabric: Fabric, dataset: Dataset, recipe: DefectRecipe, run: Run, *, seed: int) -> DefectUNet:
    """Train to recognise pasted pixels; the average of the weights at the end is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    to_memory_format(network)
    optimizer = AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    epochs = max(1, round(recipe.steps * recipe.batch_size / len(training)))
    return minimise(
        *(cross_entropy, network, optimizer, recipe),
        fabric=fabric,
        run=run,
        images=training,
        epochs=epochs,
        seed=seed,
        validate=lambda kept: {"cross_entropy": evaluate(kept, validation, seed)},
        draw=lambda kept: _sheet(kept, validation, seed),
        picture_every=epochs,
    )


@torch.no_grad()
def evaluate(network: DefectUNet, data: Images, seed: int) -> float:
    """Mean cross-entropy of the pixels, nats, with the same pasted pieces each time."""
    network.eval()
    torch.manual_seed(seed)
    total = 0.0
    for images, _ in data.in_order():
        spoilt, changed = cut_paste(images)
        total += pixel_loss(network(spoilt), changed).item() * len(images)
    return total / len(data)


@torch.no_grad()
def _sheet(network: DefectUNet, data: Images, seed: int) -> Tensor:
    """Eight images with pasted pieces, the masks, and the network's output: pixels in 0..1 [24, C, H, W]."""
    network.eval()
    torch.manual_seed(seed)
    images, _ = data.at(torch.arange(min(8, len(data))))
    spoilt, changed = cut_paste(images)
    defects = network(spoilt).sigmoid()
    return torch.cat([spoilt, *(grey[:, None].expand_as(spoilt) for grey in (changed, defects))])
