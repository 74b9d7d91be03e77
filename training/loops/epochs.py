"""What every loop does around its steps: resume, count, log, checkpoint, keep the best, stop early, stop on Ctrl-C."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from training.loops.batches import Images, batches, step_seed, steps_per_epoch
from training.loops.interrupt import Interrupt
from training.loops.progress import Progress, write
from training.loops.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the remedy."""


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Epochs:
    """The epochs of one network, exact to the step over interruptions.

    Iterating gives the numbers of the epochs that are left; `batches` gives the steps of one that are left. All
    noise in a step comes from torch's global generator, seeded from (seed, epoch, step, rank) before it: a resumed
    run draws the same numbers as one that was never interrupted.

    Args:
        run: where the checkpoint and the log go.
        fabric: launched.
        images: the training split.
        state: everything that a step changes, by name; loaded here if the run has a checkpoint.
        keep: the module whose best weights are kept.
        epochs: at most so many.
        batch_size: images a step, over all processes.
        patience: epochs without a better objective before the end; None for no early stopping.
        seed: decides the batches and the noise.

    Raises:
        TrainingError: a loss is not finite.
        RunError: the checkpoint is damaged or of another config.
    """

    def __init__(
        self,
        run: Run,
        fabric: Fabric,
        images: Images,
        *,
        state: Mapping[str, Stateful],
        keep: nn.Module,
        epochs: int,
        batch_size: int,
        patience: int | None,
        seed: int,
    ) -> None:
        self.run, self.fabric, self.images, self.state, self.keep = run, fabric, images, state, keep
        self.epochs, self.batch_size, self.patience, self.seed = epochs, batch_size, patience, seed
        self.steps = steps_per_epoch(len(images), batch_size)
        self.epoch = self.step = 0
        self.seconds = 0.0
        self.totals: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self._resume()
        self._interrupt = Interrupt()
        self._progress = Progress(run.network, epochs * self.steps, shown=fabric.is_global_zero)

    def __enter__(self) -> Self:
        self._interrupt.__enter__()
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        self._interrupt.__exit__(kind, error, trace)
        if error is None and self.best is not None:
            self.keep.load_state_dict(self.best["weights"])

    def __iter__(self) -> Iterator[int]:
        while self.epoch < self.epochs and not self._exhausted():
            yield self.epoch

    @property
    def progress(self) -> float:
        """The share of all steps that is done, 0..1."""
        return (self.epoch * self.steps + self.step) / (self.epochs * self.steps)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels in 0..1 and labels of the steps left in this epoch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        left = batches(
            self.images, self.batch_size, seed=self.seed, epoch=self.epoch, start=self.step, rank=rank, world=world
        )
        start = time.perf_counter() - self.seconds
        for batch in left:
            torch.manual_seed(step_seed(self.seed, self.epoch, self.step, rank))
            yield batch
            self._share_statistics()
            self.step += 1
            self.seconds = time.perf_counter() - start
            self._stop_if_asked()

    def record(self, **losses: Tensor) -> None:
        """Add a step's losses, each a mean over the batch, to the epoch's.

        Raises:
            TrainingError: one is not finite.
        """
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.run.network}: {name} is {value} at epoch {self.epoch + 1}, step {self.step + 1}; "
                    "lower learning_rate in the recipe, or look for broken images in the data"
                )
            self.totals[name] = self.totals.get(name, 0.0) + value
        self._progress.step(self.epoch * self.steps + self.step + 1, values)

    def finish(
        self, validation: Mapping[str, float], *, learning_rate: float, objective: tuple[float, ...] | None
    ) -> None:
        """End an epoch: log it, keep the weights if they are the best so far, write the checkpoint.

        Args:
            validation: metrics on the validation split.
            learning_rate: of the last step.
            objective: lower is better, compared in order; None keeps the last weights.
        """
        validation, objective = self.fabric.broadcast((dict(validation), objective))
        losses = {name: total / self.steps for name, total in self.totals.items()}
        if self.fabric.is_global_zero:
            self.run.log(
                {
                    "network": self.run.network,
                    "epoch": self.epoch,
                    "step": (self.epoch + 1) * self.steps,
                    "losses": losses,
                    "validation": validation,
                    "learning_rate": learning_rate,
                    "seconds": round(self.seconds, 3),
                    "images_per_second": round(self.steps * min(self.batch_size, len(self.images)) / self.seconds, 1),
                }
            )
        self._progress.epoch(self.epoch + 1, self.epochs, losses, validation, self.seconds)
        if objective is not None and (self.best is None or objective < tuple(self.best["objective"])):
            weights = copy.deepcopy(self.keep.state_dict())
            self.best = {"objective": objective, "epoch": self.epoch, "weights": weights}
        self.epoch, self.step, self.seconds, self.totals = self.epoch + 1, 0, 0.0, {}
        self._save()
        self._stop_if_asked()

    def _share_statistics(self) -> None:
        """Give every process the mean of all processes' buffers: the statistics of batch normalisation.

        Each process has seen a part of the batch only. After every step, so that a checkpoint, which the first process
        writes, holds what each of them goes on with.
        """
        if self.fabric.world_size == 1:
            return
        modules = (
            part if isinstance(part, nn.Module) else getattr(part, "network", None) for part in self.state.values()
        )
        buffers = [
            buffer
            for module in modules
            if module is not None
            for buffer in module.buffers()
            if buffer.is_floating_point() and buffer.numel()
        ]
        if not buffers:
            return
        whole = torch.cat([buffer.flatten() for buffer in buffers])
        mean = cast(Tensor, self.fabric.all_reduce(whole, reduce_op="mean"))
        for buffer, shared in zip(buffers, torch.split(mean, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(shared.view_as(buffer))

    def _exhausted(self) -> bool:
        return self.patience is not None and self.best is not None and self.epoch - self.best["epoch"] > self.patience

    def _stop_if_asked(self) -> None:
        asked = self._interrupt.requested
        if self.fabric.world_size > 1:  # all stop at the same step, or the others would wait for gradients for ever
            votes = self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")
            asked = isinstance(votes, Tensor) and votes.item() > 0
        if not asked:
            return
        self._save()
        if self.fabric.is_global_zero:
            write(
                f"{self.run.network}: interrupted after epoch {self.epoch}, step {self.step} of {self.steps}; "
                f"saved in {self.run.checkpoint}. To go on from this step, run the same command with --resume."
            )
        raise KeyboardInterrupt

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            self.run.save(
                {
                    "epoch": self.epoch,
                    "step": self.step,
                    "seconds": self.seconds,
                    "totals": self.totals,
                    "best": self.best,
                    "state": {name: part.state_dict() for name, part in self.state.items()},
                }
            )
        self.fabric.barrier()

    def _resume(self) -> None:
        saved = self.fabric.broadcast(self.run.load() if self.fabric.is_global_zero else None)
        if saved is not None:
            self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
            self.totals, self.best = saved["totals"], saved["best"]
            for name, part in self.state.items():
                part.load_state_dict(saved["state"][name])
        if self.fabric.is_global_zero:
            self.run.forget_from(self.epoch)
