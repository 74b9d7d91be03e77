from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from tests.training.loops import conftest
from training.data import Dataset
from training.data.cut_paste import cut_paste
from training.loops.batches import Images
from training.loops.defects import evaluate, train_defects
from training.loops.run import Run


def test_it_learns_where_something_was_pasted(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a", "scorer")
    network = train_defects(fabric, digits, replace(conftest.DEFECTS, steps=120), run, seed=0)
    losses = [record["validation"]["cross_entropy"] for record in run.records()]
    assert losses[-1] < 0.7 * losses[0]
    assert [path.name for path in run.pictures.iterdir()] == [f"epoch-{len(losses):04d}.png"]
    validation = Images(digits.validation, fabric.device)
    assert evaluate(network, validation, 0) == pytest.approx(losses[-1], rel=1e-4), "what is returned is the average"
    torch.manual_seed(7)
    spoilt, changed = cut_paste(validation.at(torch.arange(50))[0])
    with torch.no_grad():
        found = network(spoilt)
    assert found[changed > 0].mean() > found[changed == 0].mean() + 1


def test_the_same_things_are_pasted_at_each_evaluation(digits: Dataset, fabric: Fabric) -> None:
    torch.manual_seed(0)
    network = conftest.DEFECTS.network.build(digits.image_shape)
    validation = Images(digits.validation, fabric.device)
    first = evaluate(network, validation, 3)
    torch.rand(5)
    assert evaluate(network, validation, 3) == first
    assert evaluate(network, validation, 4) != first


def test_steps_are_rounded_to_whole_epochs(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    for steps, epochs in ((1, 1), (12, 2)):  # 200 images, 32 a step
        run = new_run(f"steps-{steps}", "scorer")
        train_defects(fabric, digits, replace(conftest.DEFECTS, steps=steps), run, seed=0)
        assert len(run.records()) == epochs
