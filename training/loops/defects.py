"""Training of the defect network, on normal images with pasted pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.optim import AdamW

from training.data import Dataset
from training.data.cut_paste import pasted
from training.loops.batches import Images
from training.loops.ema import Average
from training.loops.epochs import Epochs
from training.loops.precision import Choice, choose, lay_out, rounding
from training.loops.run import Run, save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate
from training.networks.defect_unet import DefectNet, DefectNetConfig, pixel_loss

if TYPE_CHECKING:  # takes two seconds to import
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class DefectRecipe:
    """How the defect network is trained.

    Args:
        network: the size of the network.
        steps: approximate number of steps, in whole epochs, independent of the number of images.
        batch_size: images in a step.
        learning_rate: the peak of the schedule, of Adam with decoupled weight decay.
        schedule: see `learning_rate` in training/loops/schedule.py.
        weight_decay: of all weights.
        average: decay of the moving average of the weights that is kept.
        arithmetic: float32, bfloat16, or fastest: bfloat16 if the processor has instructions for it.
    """

    network: DefectNetConfig
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-3
    average: float = 0.99
    arithmetic: Choice = "fastest"


def train_defects(fabric: Fabric, dataset: Dataset, recipe: DefectRecipe, run: Run, *, seed: int) -> DefectNet:
    """Train to recognise pasted pixels; the average of the weights at the end is kept."""
    torch.manual_seed(seed)
    network = recipe.network.build(dataset.image_shape)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))
    arithmetic = choose(fabric, run, recipe.arithmetic)
    lay_out(network)
    optimizer = AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    model, steps = fabric.setup(network, optimizer)
    average = Average(network, recipe.average)
    epochs_ = max(1, round(recipe.steps * recipe.batch_size / len(training)))
    with Epochs(
        run,
        fabric,
        training,
        state={"network": network, "optimizer": optimizer, "average": average},
        keep=average.network,
        epochs=epochs_,
        batch_size=recipe.batch_size,
        patience=None,
        seed=seed,
    ) as epochs:
        for epoch in epochs:
            model.train()
            for images, _ in epochs.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, epochs.progress))
                spoilt, changed = pasted(images)
                with rounding(fabric.device, arithmetic):
                    logits = model(spoilt)
                loss = pixel_loss(logits.float(), changed)
                optimizer.zero_grad()
                fabric.backward(loss)
                steps.step()
                average.update(network)
                epochs.record(cross_entropy=loss)
            if epoch + 1 == epochs_ and fabric.is_global_zero:
                save_grid(run.pictures / "pasted.png", _sheet(average.network, validation, seed), columns=8)
            epochs.finish(
                {"cross_entropy": evaluate(average.network, validation, seed)},
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=None,
            )
    return lay_out(average.network, torch.contiguous_format).cpu().eval()


@torch.no_grad()
def evaluate(network: DefectNet, data: Images, seed: int) -> float:
    """Mean cross-entropy of the pixels, nats, with the same pasted pieces each time."""
    network.eval()
    torch.manual_seed(seed)
    total = 0.0
    for images, _ in data.in_order():
        spoilt, changed = pasted(images)
        total += pixel_loss(network(spoilt), changed).item() * len(images)
    return total / len(data)


@torch.no_grad()
def _sheet(network: DefectNet, data: Images, seed: int) -> torch.Tensor:
    """Eight images with pasted pieces, the masks, and the network's output: pixels in 0..1 [24, C, H, W]."""
    network.eval()
    torch.manual_seed(seed)
    images, _ = data.at(torch.arange(min(8, len(data))))
    spoilt, changed = pasted(images)
    found = network(spoilt).sigmoid()
    return torch.cat([spoilt, *(grey[:, None].expand_as(spoilt) for grey in (changed, found))])
