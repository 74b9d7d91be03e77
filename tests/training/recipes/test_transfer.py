"""What a stored classifier has learnt is where another one starts, to the last map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from services.inference import registry
from services.inference.bundle import Bundle, BundleError, seal
from training.data import Dataset
from training.export.classifier import export_classifier
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.run import open_run
from training.networks.residual_cnn import ResidualCNN
from training.recipes import RECIPES
from training.recipes.transfer import LAST_LAYER, SLOWER, TransferConfig, transfer

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow

DEMO = RECIPES["demo"].networks["cnn"]
assert DEMO is not None


@pytest.fixture(scope="module")
def known(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's network with random weights and statistics that are far from 0 and 1, in a bundle."""
    torch.manual_seed(0)
    network = DEMO.network.build((1, 28, 28), 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 4)
    directory = tmp_path_factory.mktemp("known")
    exported = export_classifier(network.eval(), published.dataset, directory)
    graphs, constants = exported.graphs, exported.constants
    fields = {"name": "known-cnn", "recipe": "demo", "graphs": graphs, "constants": constants, "gates": ()}
    return seal(directory, published.classifier.manifest.model_copy(update=fields))


@pytest.fixture
def stored(known: Bundle, empty_store: Path) -> Bundle:
    registry.store(known)
    return known


def build(source: str, *, frozen: bool = False, shape: tuple[int, int, int] = (1, 28, 28)) -> ResidualCNN:
    recipe = transfer(DEMO, source, frozen=frozen)
    assert isinstance(recipe.network, TransferConfig)
    return recipe.network.build(shape, 10)


def test_the_maps_are_the_graphs_own(stored: Bundle, published: Published) -> None:
    """Class activations are linear in the maps: with the graph's last layer they must come out the same."""
    images = published.dataset.test.images[:20]
    session = onnxruntime.InferenceSession(stored.graph_path("classify"))
    [logits] = session.run(["logits"], {"images": images})
    network = build("known-cnn").train()  # training changes nothing: no statistics of the batch
    torch.manual_seed(0)
    network.classify = DEMO.network.build((1, 28, 28), 10).classify
    with torch.no_grad():
        ours = network(torch.from_numpy(images).float() / 255) / stored.manifest.constants["temperature"]
    assert ours.numpy() == pytest.approx(logits, abs=1e-3 * float(abs(logits).max()))


def test_the_last_layer_is_new_and_of_the_data(stored: Bundle) -> None:
    recipe = transfer(DEMO, "known-cnn", frozen=False)
    network = recipe.network.build((1, 20, 16), 3)
    assert network(torch.rand(2, 1, 20, 16)).shape == (2, 3)


@pytest.mark.parametrize("frozen", [True, False])
def test_freezing_keeps_everything_but_the_last_layer(
    frozen: bool, stored: Bundle, published: Published, tmp_path: Path
) -> None:
    recipe = transfer(DEMO, "known-cnn", frozen=frozen)
    brief = CNNRecipe(network=recipe.network, epochs=1, learning_rate=1e-3, patience=None)
    fabric = Fabric(accelerator="cpu", devices=1)
    before = recipe.network.build((1, 28, 28), 10).state_dict()
    trained = train_cnn(fabric, published.dataset, brief, open_run(tmp_path, "cnn", {}, resume=False), seed=0)
    after = trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"classify.weight", "classify.bias"} <= changed
    assert ({name for name in changed if name.startswith("layers.")} == set()) == frozen
    assert not any("running" in name for name in changed)


def test_fine_tuning_takes_smaller_steps_and_a_last_layer_alone_larger_ones(stored: Bundle) -> None:
    assert transfer(DEMO, "known-cnn", frozen=False).learning_rate == SLOWER * DEMO.learning_rate < DEMO.learning_rate
    for recipe in (DEMO, RECIPES["reference"].networks["cnn"]):
        alone = transfer(recipe, "known-cnn", frozen=True)
        assert (alone.optimizer, alone.learning_rate) == ("adam", LAST_LAYER)
    assert DEMO.learning_rate < LAST_LAYER


def test_what_was_transferred_can_be_transferred_again(stored: Bundle, published: Published, tmp_path: Path) -> None:
    network = build("known-cnn").eval()
    graphs = export_classifier(network, published.dataset, tmp_path).graphs
    fields = {"name": "second-cnn", "recipe": "demo --from known-cnn", "graphs": graphs, "files": {}}
    registry.store(seal(tmp_path, stored.manifest.model_copy(update=fields)))
    second = transfer(RECIPES["reference"].networks["cnn"], "second-cnn", frozen=False).network.build((1, 28, 28), 10)
    for theirs, ours in zip(network.layers, second.layers, strict=True):
        for name, weight in theirs.state_dict().items():
            assert ours.state_dict()[name].float().numpy() == pytest.approx(weight.float().numpy(), abs=1e-5)


def test_other_channels_are_refused(stored: Bundle) -> None:
    with pytest.raises(ValueError, match="takes images of 1 channel"):
        build("known-cnn", shape=(3, 28, 28))


def test_another_kind_of_network_is_refused(published: Published, empty_store: Path) -> None:
    registry.store(published.classifier)
    registry.store(published.generator)
    for name in ("digits-cnn", "digits-vae"):
        with pytest.raises(ValueError, match="only from residual networks in float32; choose a bundle"):
            transfer(DEMO, name, frozen=False)


def test_other_sizes_are_refused(stored: Bundle) -> None:
    wide = TransferConfig(RECIPES["reference"].networks["cnn"].network, "known-cnn", frozen=False)
    with pytest.raises(BundleError, match=r"no cnn\.layers\.0\.weight of shape"):
        wide.build((1, 28, 28), 10)


def test_a_missing_bundle_is_named(empty_store: Path) -> None:
    with pytest.raises(BundleError, match="'nobody' is not in the store"):
        transfer(DEMO, "nobody", frozen=False)


def test_recipe_variants_say_what_they_are(stored: Bundle, published: Published) -> None:
    from training.recipes.overrides import variant  # noqa: PLC0415

    assert isinstance(published.dataset, Dataset)
    demo = RECIPES["demo"]
    frozen = variant(demo, "digits", source="known-cnn", frozen=True, augmented=False)
    tag = f"known-cnn:{stored.version}"
    assert frozen.name == f"demo --from {tag} --freeze --no-augment", "the options that make it"
    assert list(frozen.networks) == ["cnn"]
    assert frozen.networks["cnn"].augment is None
    assert variant(demo, "digits", source=None, frozen=False, augmented=True).networks["cnn"] == demo.networks["cnn"]
    with pytest.raises(ValueError, match="name a classifier with --from"):
        variant(demo, "digits", source=None, frozen=True, augmented=True)
    with pytest.raises(ValueError, match="--recipe baselines has no CNN"):
        variant(RECIPES["baselines"], "digits", source=None, frozen=False, augmented=False)
