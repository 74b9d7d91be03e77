from collections.abc import Callable

from lightning_fabric import Fabric

from training.data import Dataset
from training.loops.batches import Images
from training.loops.cnn import CNNRecipe, evaluate, train_cnn
from training.networks.cnn import CNNConfig
from training.run import Run

RECIPE = CNNRecipe(CNNConfig(channels=(8, 16)), epochs=15, batch_size=32, learning_rate=3e-3, patience=None)


def test_learns_the_digits(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    network = train_cnn(fabric, digits, RECIPE, run, seed=0)
    losses = [record["losses"]["cross_entropy"] for record in run.records()]
    assert losses[-1] < losses[0] / 3
    error, _ = evaluate(network, Images(digits.test, fabric.device))
    assert error < 0.15
    assert not network.training
