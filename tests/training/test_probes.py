"""A kind of network that Duet has not, a normalising flow, is a network, a loop, a recipe and a row of the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from services.inference import bundle
from training.cli import app
from training.data import Dataset, Split, load
from training.evaluation.generators import assess as generators
from training.export.generators import export_gan
from training.graphs.inference import sample
from training.kinds import KINDS, alone, product_of
from training.loops.batches import Images
from training.loops.minimise import StepRecipe, minimise
from training.loops.run import Run
from training.publishing import gates
from training.publishing.kind import Kind, Product
from training.publishing.report import evaluate
from training.recipes import Recipe
from training.train import train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SIDE = 7


class Flow(nn.Module):
    """Affine couplings between pixels as logits and a standard normal z (L. Dinh et al., ICLR 2017, section 3)."""

    def __init__(self, image_shape: tuple[int, int, int], hidden: int, couplings: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_size = int(np.prod(image_shape))
        self.kept = [(torch.arange(self.latent_size) + turn) % 2 for turn in range(couplings)]
        self.scale_and_shift = nn.ModuleList(
            nn.Sequential(nn.Linear(self.latent_size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * self.latent_size))
            for _ in range(couplings)
        )

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N,D] -> z [N,D], and the logarithm of the Jacobian's determinant [N]."""
        determinant = torch.zeros(len(y))
        for kept, network in zip(self.kept, self.scale_and_shift, strict=True):
            scale, shift = network(y * kept).chunk(2, dim=1)
            scale = scale.tanh() * (1 - kept)
            y = y * scale.exp() + shift * (1 - kept)
            determinant = determinant + scale.sum(dim=1)
        return y, determinant

    def draw(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N,D] -> pixels in 0..1 [N,C,H,W]; the labels are not used."""
        y = z
        for kept, network in reversed(list(zip(self.kept, self.scale_and_shift, strict=True))):
            scale, shift = network(y * kept).chunk(2, dim=1)
            scale = scale.tanh() * (1 - kept)
            y = (y - shift * (1 - kept)) * (-scale).exp()
        return y.sigmoid().unflatten(1, self.image_shape) + 0.0 * labels[:, None, None, None]


@dataclass(frozen=True)
class FlowRecipe(StepRecipe):
    hidden: int = 128
    couplings: int = 4
    epochs: int = 8


def negative_log_likelihood(network: nn.Module, x: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
    """That of z, in nats an image and up to a constant; noise fills the gaps between grey levels."""
    y = 0.01 + 0.98 * (x.flatten(1) * 255 + torch.rand_like(x.flatten(1))) / 256
    z, determinant = network(y.logit())
    return {"loss": (0.5 * z.square().sum(dim=1) - determinant).mean()}


def train_flow(fabric: Fabric, dataset: Dataset, recipe: FlowRecipe, run: Run, *, seed: int) -> Flow:
    torch.manual_seed(seed)
    network = Flow(dataset.image_shape, recipe.hidden, recipe.couplings)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    training, validation = (Images(split, fabric.device) for split in (dataset.train, dataset.validation))

    @torch.no_grad()
    def validate(kept: Flow) -> dict[str, float]:
        losses = [negative_log_likelihood(kept, x, labels, 1.0)["loss"] for x, labels in validation.in_order()]
        return {"loss": torch.stack(losses).mean().item()}

    return minimise(
        *(negative_log_likelihood, network, optimizer, recipe),
        fabric=fabric,
        run=run,
        images=training,
        epochs=recipe.epochs,
        seed=seed,
        validate=validate,
    )


FLOW = Kind(
    "flow",
    alone(train_flow),
    (
        Product(
            "flow", "generation", ("decode",), export_gan,
            validate=generators.validate_gan, assess=generators.gan, gates=gates.gan_gates,
        ),
    ),
    judged=True,
)  # fmt: skip


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "flow", FLOW)


def few() -> Dataset:
    """Digits of 7 x 7 pixels."""
    digits = load("digits")
    splits = {role: getattr(digits, role) for role in digits.splits}
    small = {role: Split(part.images[:, :, 2::4, 2::4].copy(), part.labels) for role, part in splits.items()}
    return replace(digits, name="few", **small)


@pytest.mark.nightly
@pytest.mark.usefixtures("row")
def test_a_row_is_enough_to_train_publish_and_evaluate_a_new_kind(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, recipe = few(), Recipe("probe", {"flow": FlowRecipe(batch_size=64, learning_rate=2e-3)})
    how: dict[str, Any] = {"seed": 0, "out": tmp_path, "accelerator": "cpu"}
    [made] = train(data, recipe, ["flow"], resume=False, **how)
    stored = bundle.load(made.path)
    assert (stored.name, stored.manifest.network, stored.manifest.task) == ("few-flow", "flow", "generation")
    assert stored.manifest.latent_size == SIDE * SIDE
    assert stored.manifest.gates
    assert {"card.md", "training.png"} <= set(stored.manifest.files)
    drawn = sample(stored, 200, np.arange(200) % 10).mean(axis=0) / 255
    assert np.abs(drawn - data.train.images.mean(axis=0) / 255).mean() < 0.05, "samples are as bright as the digits"
    assert product_of(stored.manifest) is FLOW.products[0]
    assert evaluate(product_of(stored.manifest), stored, data, out=tmp_path / "report") == stored.manifest.metrics
    [again] = train(data, recipe, ["flow"], resume=True, **how)
    assert again.digest == made.digest


def test_a_bundle_without_a_row_is_known_by_its_task_and_graphs(
    row: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = FakeManifest("unknown", "generation", ("encode", "decode"))
    assert product_of(manifest).name == "vae"  # type: ignore[arg-type]
    assert product_of(replace(manifest, graphs=("decode", "discriminate"))).name == "gan"  # type: ignore[arg-type]
    assert product_of(replace(manifest, graphs=("prior", "encode", "decode"))).name == "cvae"  # type: ignore[arg-type]
    assert product_of(FakeManifest("cvae", "classification", ("classify",))).name == "bayes"  # type: ignore[arg-type]
    assert product_of(FakeManifest("old", "classification", ("classify",))).name == "cnn"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown is a bundle for embedding"):
        product_of(replace(manifest, task="embedding"))  # type: ignore[arg-type]


@dataclass(frozen=True)
class FakeManifest:
    network: str
    task: str
    graphs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.network


def test_the_command_line_names_the_networks_that_there_are(row: None) -> None:
    result = CliRunner().invoke(app, ["train", "--network", "diffusion"], env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert f"'diffusion' is not one of all, {', '.join(KINDS)}" in result.stderr
    assert "gru, vae, cvae, gan, scorer, flow" in result.stderr


@pytest.mark.parametrize("name", list(KINDS))
def test_each_row_has_the_name_by_which_it_is_found(name: str) -> None:
    kind = KINDS[name]
    assert kind.name == name
    assert kind.labelled == (kind.products[0].task == "classification")
