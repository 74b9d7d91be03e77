"""The step loop of every network but the GAN: a loss feeds it; everything else is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.data.augmentation import Augmentation, unchanged
from training.loops.batches import Images
from training.loops.ema import ExponentialMovingAverage
from training.loops.epochs import Epochs, Stateful
from training.loops.precision import Choice, autocast, choose_dtype, to_memory_format
from training.loops.run import Run, save_grid
from training.loops.schedule import Schedule, learning_rate, set_learning_rate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

NetworkT = TypeVar("NetworkT", bound=nn.Module)

# Terms of a batch's loss by name, scalars, from the network, pixels in 0..1 [N, C, H, W], labels [N], and the share of
# all steps that is done. `loss` is minimised; without it, their sum. All of them are logged.
Loss = Callable[[nn.Module, Tensor, Tensor, float], Mapping[str, Tensor]]
# Metrics of a network on the validation split, by name. The objective, lower is better, is compared in their order.
Validate = Callable[[NetworkT], Mapping[str, float]]
# A picture of what a network does: pixels in 0..1 [N, C, H, W], eight in a row.
Draw = Callable[[NetworkT], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepRecipe:
    """What `minimise` reads of a recipe.

    Args:
        batch_size: images in a step, over all processes.
        learning_rate: the peak of the schedule.
        schedule: see `learning_rate` in training/loops/schedule.py.
        weight_decay: of all weights, decoupled from the gradient.
        augment: changes every training batch.
        ema_half_life: in images, of a moving average of the weights; the average is validated, and kept at the end.
            Without it, the weights with the best validation are kept.
        arithmetic: float32, bfloat16, or fastest: bfloat16 if the processor has instructions for it. Validation is
            float32.
    """

    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    augment: Augmentation | None = None
    ema_half_life: float | None = None
    arithmetic: Choice = "float32"


def minimise(
    loss: Loss,
    network: NetworkT,
    optimizer: Optimizer,
    recipe: StepRecipe,
    *,
    fabric: Fabric,
    run: Run,
    images: Images,
    epochs: int,
    seed: int,
    validate: Validate[NetworkT],
    draw: Draw[NetworkT] | None = None,
    picture_every: int = 1,
    patience: int | None = None,
    clip: float | None = None,
) -> NetworkT:
    """Train `network`; returns its average, or its weights of the best epoch, on the CPU in evaluation mode.

    Args:
        loss: computed in the recipe's arithmetic, on augmented images.
        network: on the CPU.
        optimizer: of its weights.
        recipe: how a step is made.
        fabric: launched.
        run: where the checkpoint, the log and the pictures go.
        images: the training split.
        epochs: at most so many.
        seed: decides the batches and the noise.
        validate: after each epoch; the first value that differs decides which epoch is better.
        draw: every `picture_every` epochs.
        picture_every: epochs between pictures.
        patience: epochs without a better validation before the end; None for no early stopping.
        clip: largest norm of the gradient.
    """
    arithmetic = choose_dtype(fabric, run, recipe.arithmetic)
    if arithmetic == "bfloat16":
        to_memory_format(network)
    model, steps = fabric.setup(network, optimizer)
    state: dict[str, Stateful] = {"network": network, "optimizer": optimizer}
    average, kept = None, network
    if recipe.ema_half_life is not None:
        average = ExponentialMovingAverage(network, half_life=recipe.ema_half_life, batch_size=recipe.batch_size)
        state["average"], kept = average, cast(NetworkT, average.module)
    augment = recipe.augment or unchanged
    with Epochs(
        *(run, fabric, images),
        state=state,
        keep=kept,
        epochs=epochs,
        batch_size=recipe.batch_size,
        patience=patience,
        seed=seed,
    ) as loop:
        for epoch in loop:
            model.train()
            for pixels, labels in loop.batches():
                set_learning_rate(optimizer, learning_rate(recipe.schedule, recipe.learning_rate, loop.progress))
                augmented = augment(pixels)
                with autocast(fabric.device, arithmetic):
                    terms = loss(model, augmented, labels, loop.progress)
                optimizer.zero_grad()
                fabric.backward(terms["loss"] if "loss" in terms else torch.stack([*terms.values()]).sum())
                if clip is not None:
                    fabric.clip_gradients(model, optimizer, max_norm=clip)
                steps.step()
                if average is not None:
                    average.update_parameters(network)
                loop.record(**terms)
            validation = validate(kept)
            if draw is not None and (epoch + 1) % picture_every == 0 and fabric.is_global_zero:
                save_grid(run.pictures / f"epoch-{epoch + 1:04d}.png", draw(kept), columns=8)
            loop.finish(
                validation,
                learning_rate=optimizer.param_groups[0]["lr"],
                objective=tuple(validation.values()) if average is None else None,
            )
    return to_memory_format(kept, torch.contiguous_format).cpu().eval()
