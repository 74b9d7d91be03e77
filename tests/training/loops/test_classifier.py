from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from tests.training.loops import test_epochs
from training.data import Dataset
from training.data.augmentation import Compose, Cutout, Shift
from training.loops.batches import Images
from training.loops.classifier import CNNRecipe, evaluate, normalise_by, optimizer_of, train_cnn
from training.loops.run import Run
from training.networks.cnn import CNNConfig
from training.networks.residual_cnn import ResidualCNNConfig
from training.recipes.transfer import FixedStatistics

RECIPE = CNNRecipe(CNNConfig(channels=(8, 16)), epochs=15, batch_size=32, learning_rate=3e-3, patience=None)
AVERAGED = CNNRecipe(
    ResidualCNNConfig(8, blocks=2),
    epochs=25,
    batch_size=32,
    learning_rate=0.1,
    schedule="cosine",
    optimizer="sgd",
    weight_decay=5e-4,
    augment=Compose((Shift(1), Cutout(3))),
    ema_half_life=210.0,
    arithmetic="fastest",
    patience=None,
)


def test_learns_the_digits(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    run = new_run("a")
    network = train_cnn(fabric, digits, RECIPE, run, seed=0)
    losses = [record["losses"]["cross_entropy"] for record in run.records()]
    assert losses[-1] < losses[0] / 3
    error, _ = evaluate(network, Images(digits.test, fabric.device))
    assert error < 0.15
    assert not network.training


def test_the_average_is_validated_and_kept_as_it_is_at_the_end(
    digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]
) -> None:
    run = new_run("a")
    network = train_cnn(fabric, digits, AVERAGED, run, seed=0)
    validation = run.records()[-1]["validation"]
    assert evaluate(network, Images(digits.validation, fabric.device)) == pytest.approx(
        (validation["error"], validation["cross_entropy"]), rel=1e-4
    )
    error, _ = evaluate(network, Images(digits.test, fabric.device))
    assert error < 0.25
    assert all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in network.parameters())
    checkpoint = run.load()
    assert checkpoint is not None
    last = checkpoint["state"]["network"]
    assert not torch.equal(last["classify.weight"], network.classify.weight)


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("position", [(0, 0), (1, 2)], ids=["first step", "mid-epoch"])
def test_an_averaged_run_resumes_to_the_bit(
    arithmetic: str,
    position: tuple[int, int],
    digits: Dataset,
    fabric: Fabric,
    new_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(AVERAGED, epochs=3)

    def train(run: Run) -> dict[str, torch.Tensor]:
        run.note(arithmetic=arithmetic)
        return train_cnn(fabric, digits, recipe, run, seed=0).state_dict()

    whole = train(new_run("whole"))
    with monkeypatch.context() as patched:
        test_epochs.interrupt_at(patched, *position)
        with pytest.raises(KeyboardInterrupt):
            train(new_run("parts"))
    parts = train(new_run("parts", resume=True))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_sgd_lets_only_weights_of_convolutions_and_dense_layers_decay() -> None:
    network = ResidualCNNConfig(8).build((1, 12, 12), 3)
    decay = {
        id(weight): group["weight_decay"]
        for group in optimizer_of(network, AVERAGED).param_groups
        for weight in group["params"]
    }
    assert len(decay) == len(list(network.parameters()))
    for name, weight in network.named_parameters():
        decays = name == "classify.weight" or (name.endswith("weight") and weight.ndim == 4)
        assert decay[id(weight)] == (5e-4 if decays else 0.0), name


def test_normalisation_is_that_of_whole_images(digits: Dataset, fabric: Fabric, new_run: Callable[..., Run]) -> None:
    blinded = replace(AVERAGED, epochs=2, augment=Cutout(6))
    network = train_cnn(fabric, digits, blinded, new_run("a"), seed=0)
    images, _ = Images(digits.train, fabric.device).at(torch.arange(len(digits.train)))
    with torch.no_grad():
        seen = network.layers[0](2 * images - 1)
    assert torch.allclose(network.layers[1].running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert torch.allclose(network.layers[1].running_var, seen.var(dim=(0, 2, 3)), rtol=1e-2)


def test_fixed_normalisation_stays_fixed(digits: Dataset, fabric: Fabric) -> None:
    network = ResidualCNNConfig(8).build(digits.image_shape, 10)
    network.layers = FixedStatistics(*network.layers)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    normalise_by(network, Images(digits.train, fabric.device))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
