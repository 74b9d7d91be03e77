from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from services.inference import registry
from services.inference.bundle import seal
from training.data import Dataset, Split
from training.data.dataset import joined
from training.export.generators import export_gan
from training.networks.gan import GANConfig
from training.recipes.synthetic_data import with_samples

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow


@pytest.fixture
def generator(published: Published, empty_store: Path, tmp_path: Path) -> str:
    """An untrained conditional generator of digits, in the store."""
    torch.manual_seed(0)
    config = GANConfig(latent_size=8, embedding=4, generator_channels=8)
    network = config.build_generator(published.dataset.image_shape, 10).eval()
    directory = tmp_path / "gan"
    directory.mkdir()
    graphs = export_gan(network, published.dataset, directory).graphs
    fields = {
        "name": "digits-gan", "task": "generation", "network": "gan", "latent_size": 8, "graphs": graphs, "gates": ()
    }  # fmt: skip
    return registry.store(seal(directory, published.generator.manifest.model_copy(update=fields))).tag


def test_samples_join_the_training_split_alone(generator: str, published: Published) -> None:
    data = published.dataset
    more = with_samples(data, generator, 25, seed=3)
    assert more.splits == data.splits | {"train": len(data.train) + 25}
    assert np.array_equal(more.train.images[:-25], data.train.images)
    assert more.train.labels is not None
    assert more.train.labels[-25:].tolist() == [i % 10 for i in range(25)]
    assert more.test is data.test
    assert more.digest != data.digest


def test_a_seed_decides_the_samples(generator: str, published: Published) -> None:
    first, again, other = (with_samples(published.dataset, generator, 10, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest


def test_what_does_not_draw_such_data_is_refused(generator: str, published: Published) -> None:
    data = published.dataset
    registry.store(published.generator)
    registry.store(published.scorer)
    with pytest.raises(ValueError, match="is a bundle for anomaly, which draws no images"):
        with_samples(data, "digits-scorer", 10, seed=0)
    with pytest.raises(ValueError, match="does not draw by class"):
        with_samples(data, "digits-vae", 10, seed=0)
    letters = Dataset(data.name, tuple("abcdefghij"), data.train, data.validation, data.calibration, data.test)
    with pytest.raises(ValueError, match=r"draws images \(1, 28, 28\) of 0, 1, .* but digits has"):
        with_samples(letters, generator, 10, seed=0)


def test_images_without_labels_are_not_joined(published: Published) -> None:
    train = published.dataset.train
    with pytest.raises(ValueError, match="labels: some of the images have no labels"):
        joined(train, Split(train.images))
