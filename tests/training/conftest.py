"""Networks trained for a few seconds on the digits, and the bundles published from them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F

from services.inference.bundle import Bundle
from tests.brief import reuse_table_of_operators
from training.data import Dataset, load
from training.data.cut_paste import cut_paste
from training.kinds import KINDS
from training.networks.cnn import CNNConfig
from training.networks.defect_unet import DefectUNet, DefectUNetConfig, pixel_loss
from training.networks.vae import VAE, VAEConfig
from training.publishing.publish import publish
from training.scorer.components import Parts


@dataclass(frozen=True)
class Published:
    """The digits, two networks trained on them, what a scorer is made of, and what publishing made of those."""

    dataset: Dataset
    cnn: nn.Module
    vae: VAE
    parts: Parts
    run_dir: Path
    classifier: Bundle
    generator: Bundle
    scorer: Bundle


def fit(network: nn.Module, dataset: Dataset, loss: Callable[[Tensor, Tensor], Tensor], steps: int) -> None:
    assert dataset.train.labels is not None
    pixels = torch.from_numpy(dataset.train.images).float() / 255
    labels = torch.from_numpy(dataset.train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(pixels), (64,), generator=generator)
        optimiser.zero_grad()
        loss(pixels[rows], labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def brief_defects(dataset: Dataset, steps: int = 40) -> DefectUNet:
    """Trained until its logits differ from image to image by more than rounding does."""
    torch.manual_seed(0)
    network = DefectUNetConfig(4).build(dataset.image_shape)
    pixels = torch.from_numpy(dataset.train.images).float() / 255
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        spoilt, changed = cut_paste(pixels[torch.arange(32 * step, 32 * (step + 1)) % len(pixels)])
        optimiser.zero_grad()
        pixel_loss(network(spoilt), changed).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


reuse_table_of_operators()


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[Path]:
    """BentoML's model store in a folder of this test: BENTOML_HOME is read at import, so the container is told."""
    path = tmp_path / "models"
    path.mkdir()
    BentoMLContainer.model_store.set(ModelStore(path))
    yield path
    BentoMLContainer.model_store.reset()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Made once in a run of the tests: the first process that asks makes it, others that run beside it load it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return make(tmp_path_factory.mktemp("run"))
    run_dir = tmp_path_factory.getbasetemp().parent / f"published-{run}"
    kept = run_dir / "published.pickle"
    with FileLock(f"{run_dir}.lock"):
        if not kept.exists():
            run_dir.mkdir()
            kept.write_bytes(pickle.dumps(make(run_dir)))
    published: Published = pickle.loads(kept.read_bytes())
    return published


def make(run_dir: Path) -> Published:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = load("digits")
    cnn = CNNConfig(channels=(16, 32)).build(dataset.image_shape, len(dataset.class_names))
    fit(cnn, dataset, lambda x, y: F.cross_entropy(cnn(x), y), steps=300)
    vae = VAEConfig().build(dataset.image_shape)

    def negative_elbo(x: Tensor, _: Tensor) -> Tensor:
        logits, mean, log_variance = vae(x)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        loss: Tensor = (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence) / len(x)
        return loss

    fit(vae, dataset, negative_elbo, steps=400)
    [classifier] = publish(KINDS["cnn"], cnn, dataset, recipe="brief", seed=0, run_dir=run_dir)
    [generator] = publish(KINDS["vae"], vae, dataset, recipe="brief", seed=0, run_dir=run_dir)
    parts = Parts(generator, brief_defects(dataset), classifier, coreset_size=100)
    [scorer] = publish(KINDS["scorer"], parts, dataset, recipe="brief", seed=0, run_dir=run_dir)
    return Published(dataset, cnn, vae, parts, run_dir, classifier, generator, scorer)
