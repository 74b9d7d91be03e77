from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from services.inference import bundle, registry
from training.data import load
from training.export.classifier import export_classifier
from training.graphs.inference import predict
from training.recipes import RECIPES
from training.recipes.reference import CNN

REFERENCE = RECIPES["reference"]


@pytest.mark.parametrize("dataset", [*CNN, "shells"])
def test_every_data_set_has_a_classifier_that_no_selection_ends(dataset: str) -> None:
    recipe = REFERENCE.for_dataset(dataset)
    assert recipe.name == "reference"
    assert recipe.networks["cnn"].patience is None
    assert "vae" not in recipe.networks
    assert recipe.networks["cnn"].ema_half_life is not None
    assert recipe.networks["cvae"] is not None
    assert recipe.networks["gan"] is not None


def test_data_sets_differ_in_augmentation() -> None:
    assert len({REFERENCE.for_dataset(name).networks["cnn"].augment for name in CNN}) == len(CNN)
    assert REFERENCE.for_dataset("shells") is REFERENCE
    assert "Flip" not in repr(REFERENCE.networks["cnn"]), "letters and faces are not mirrored"


def test_a_gan_of_few_images_is_kept_from_learning_them_by_heart() -> None:
    assert REFERENCE.for_dataset("shells").networks["gan"] == REFERENCE.for_dataset("digits").networks["gan"]
    assert REFERENCE.for_dataset("shells").networks["gan"].augment is not None
    assert (
        REFERENCE.for_dataset("shells").networks["gan"].epochs > REFERENCE.for_dataset("mnist").networks["gan"].epochs
    )


@pytest.mark.slow
@pytest.mark.parametrize("dataset", CNN)
def test_its_graph_keeps_within_its_size(dataset: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = REFERENCE.for_dataset(dataset).networks["cnn"].network.build((1, 28, 28), 10).eval()
    assert sum(weight.numel() for weight in network.parameters()) <= 270_000
    export_classifier(network, load("digits"), tmp_path)
    assert (tmp_path / "classify.onnx").stat().st_size <= 1_000_000


@pytest.mark.parametrize("name", ["mnist-cnn", "fashion-mnist-cnn"])
def test_class_activations_of_the_committed_graphs_mean_their_logits(name: str) -> None:
    committed = bundle.load(registry.REFERENCE / name)
    weights = onnx.load(committed.graph_path("classify")).graph.initializer
    [bias] = [numpy_helper.to_array(weight) for weight in weights if weight.name == "cnn.classify.bias"]
    outputs = predict(committed, load("digits").test.images)
    means = outputs["class_activation"].mean(axis=(2, 3), dtype=np.float64)
    expected = means + bias / committed.manifest.constants["temperature"]
    # Sums of float32 in two orders: on the 10,000 test images of either they differ by 1.1e-5 at most.
    np.testing.assert_allclose(outputs["logits"], expected, rtol=0, atol=5e-5)
