from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from tests.training.loops import conftest
from training.data import Dataset
from training.loops.batches import Images
from training.loops.classifier import evaluate, train_cnn
from training.loops.epochs import Epochs, TrainingError
from training.loops.run import Run, RunError

NETWORKS = ("cnn", "vae", "gan", "scorer")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Deliver a SIGINT in the middle of one step."""
    record = Epochs.record

    def interrupted(self: Epochs, **losses: Tensor) -> None:
        if (self.epoch, self.step) == (epoch, step):
            signal.raise_signal(signal.SIGINT)
        record(self, **losses)

    monkeypatch.setattr(Epochs, "record", interrupted)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("position", [(0, 0), (1, 2), (2, 5)], ids=["first step", "mid-epoch", "last step of an epoch"])
def test_interrupted_and_resumed_is_bit_identical(
    network: str, position: tuple[int, int], trains: Any, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trains[network](new_run("whole", network)).state_dict()
    with monkeypatch.context() as patched:
        interrupt_at(patched, *position)
        with pytest.raises(KeyboardInterrupt):
            trains[network](new_run("parts", network))
    parts_run = new_run("parts", network, resume=True)
    assert len(parts_run.records()) == position[0]
    parts = trains[network](parts_run).state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    def deterministic(run: Run) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in record.items() if k not in {"seconds", "images_per_second"}} for record in run.records()
        ]

    assert deterministic(parts_run) == deterministic(new_run("whole", network, resume=True))


def test_the_seed_decides_the_weights(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    first, second = (
        train_cnn(fabric, digits, conftest.CNN, new_run(f"seed-{seed}"), seed=seed).classify.weight for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_a_finished_run_is_not_trained_again(trains: Any, new_run: Callable[..., Run]) -> None:
    weights = trains["cnn"](new_run("a")).state_dict()
    run = new_run("a", resume=True)
    before = run.records()
    again = trains["cnn"](run).state_dict()
    assert run.records() == before
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_crash_between_record_and_checkpoint_leaves_one_record_an_epoch(
    trains: Any, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Run, "save", lambda self, state: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            trains["cnn"](new_run("a"))
    run = new_run("a", resume=True)
    assert len(run.records()) == 1
    trains["cnn"](run)
    assert [record["epoch"] for record in run.records()] == [0, 1, 2, 3]


def test_early_stopping_keeps_the_best_weights(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    # The learning rate is so high that the validation loss soon grows: 40 epochs are not reached.
    recipe = replace(conftest.CNN, epochs=40, learning_rate=0.3, schedule="constant", augment=None, patience=2)
    run = new_run("a")
    network = train_cnn(fabric, digits, recipe, run, seed=0)
    objectives = [(r["validation"]["error"], r["validation"]["cross_entropy"]) for r in run.records()]
    best = min(range(len(objectives)), key=objectives.__getitem__)
    assert len(objectives) < 40
    assert len(objectives) - 1 - best == recipe.patience
    assert evaluate(network, Images(digits.validation, fabric.device)) == pytest.approx(objectives[best])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_loss_that_is_not_finite_stops(
    network: str, trains: Any, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Epochs.record

    def poisoned(self: Epochs, **losses: Tensor) -> None:
        bad = {name: loss * (math.nan if (self.epoch, self.step) == (1, 3) else 1) for name, loss in losses.items()}
        record(self, **bad)

    monkeypatch.setattr(Epochs, "record", poisoned)
    run = new_run("a", network)
    with pytest.raises(TrainingError, match=rf"{network}: \w+ is nan at epoch 2, step 4; lower learning_rate"):
        trains[network](run)
    checkpoint = run.load()
    assert checkpoint is not None
    assert checkpoint["epoch"] == 1


def test_a_learning_rate_without_bounds_stops(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    recipe = replace(conftest.CNN, learning_rate=1e30, schedule="constant")
    with pytest.raises(TrainingError, match=r"cross_entropy is (nan|inf) at epoch"):
        train_cnn(fabric, digits, recipe, new_run("a"), seed=0)


def test_a_checkpoint_of_another_config_is_refused(trains: Any, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    trains["cnn"](run)
    with pytest.raises(RunError, match="holds a run with seed 0, but the command gives 1"):
        trains["cnn"](replace(run, config={"seed": 1}))


@pytest.mark.parametrize("network", NETWORKS)
def test_metrics_log(network: str, trains: Any, new_run: Callable[..., Run], digits: Dataset) -> None:
    run = new_run("a", network)
    trains[network](run)
    terms = {
        "cnn": ({"cross_entropy"}, {"error", "cross_entropy"}),
        "vae": ({"loss", "reconstruction", "kl"}, {"loss", "reconstruction", "kl"}),
        "gan": ({"discriminator", "generator"}, {"discriminator"}),
        "scorer": ({"cross_entropy"}, {"cross_entropy"}),
    }
    records = run.records()
    assert [(record["epoch"], record["step"]) for record in records] == [(0, 6), (1, 12), (2, 18), (3, 24)]
    for record in records:
        assert record["network"] == network
        assert (record["losses"].keys(), record["validation"].keys()) == terms[network]
        assert record["learning_rate"] > 0
        assert record["seconds"] > 0
        assert record["images_per_second"] > 0
