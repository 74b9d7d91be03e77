"""Parts of a scorer of the digits, hardly trained, and the scorer that was made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from services.inference.bundle import Bundle, Graph, seal
from tests.training.conftest import brief_defects
from training.data import Dataset, load
from training.data.arrays import Array
from training.export.bundle import export_bundle
from training.graphs.session import open_graph, run
from training.kinds import KINDS
from training.networks.cnn import CNNConfig
from training.networks.vae import VAEConfig
from training.scorer import export
from training.scorer.components import Parts
from training.scorer.export import ReferenceScorer, export_scorer
from training.scorer.fit import Scorer

Seal = Callable[..., Bundle]


@dataclass(frozen=True)
class Made:
    """A scorer's file, and what it says of its own calibration images."""

    parts: Parts
    scorer: Scorer
    path: Path
    graph: Graph
    constants: dict[str, float]
    statistics: tuple[str, ...]
    calibration: dict[str, Array]

    def __call__(self, images: Array) -> dict[str, Array]:
        return run(open_graph(self.path), {"images": images})


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Some of them, so that classes are unequal; by another name, for which no accuracy is asked."""
    whole = load("digits")
    some = {"train": 300, "validation": 100, "calibration": 90, "test": 100}
    splits = {role: getattr(whole, role).take(np.arange(size)) for role, size in some.items()}
    return replace(whole, name="numerals", **splits)


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Seal:
    """Export a network as the bundle `digits-<product>`, and seal it unmeasured."""

    def sealed(network: str, module: nn.Module, dataset: Dataset) -> Bundle:
        directory = tmp_path_factory.mktemp(network)
        product = KINDS[network].products[0]
        how = {"name": f"digits-{network}", "recipe": "brief", "seed": 0, "directory": directory}
        bare = export_bundle(product.export, module, dataset, task=product.task, network=network, **how)
        return seal(directory, bare.manifest)

    return sealed


@pytest.fixture(scope="session")
def cnn(digits: Dataset) -> nn.Module:
    """Half trained: right about most digits."""
    torch.manual_seed(0)
    network = CNNConfig(channels=(8, 16), hidden=32).build(digits.image_shape, 10)
    assert digits.train.labels is not None
    pixels, labels = torch.from_numpy(digits.train.images).float() / 255, torch.from_numpy(digits.train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(60):
        rows = torch.arange(50 * step, 50 * (step + 1)) % len(pixels)
        optimiser.zero_grad()
        F.cross_entropy(network(pixels[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="session")
def parts(digits: Dataset, cnn: nn.Module, sealed: Seal) -> Parts:
    torch.manual_seed(0)
    vae = VAEConfig(latent_size=4, hidden=16).build(digits.image_shape).eval()
    return Parts(sealed("vae", vae, digits), brief_defects(digits), sealed("cnn", cnn, digits), coreset_size=40)


@pytest.fixture(scope="session")
def scorer(parts: Parts, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(parts, digits, tmp_path_factory.mktemp("scorer"))


def made(parts: Parts, dataset: Dataset, directory: Path) -> Made:
    kept: list[Scorer] = []

    class Kept(ReferenceScorer):
        def __init__(self, scorer: Scorer) -> None:
            kept.append(scorer)
            super().__init__(scorer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "ReferenceScorer", Kept)
        exported = export_scorer(parts, dataset, directory)
    path = directory / "score.onnx"
    calibration = run(open_graph(path), {"images": dataset.calibration.images})
    return Made(parts, kept[0], path, exported.graphs["score"], exported.constants, exported.statistics, calibration)
