from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from services.inference import bundle
from tests.training.conftest import brief_defects, fit
from training.data import Dataset, Split
from training.data.names import slug
from training.evaluation.tables import parity_table
from training.graphs.inference import score
from training.kinds import KINDS
from training.networks.cnn import CNNConfig
from training.networks.vae import VAEConfig
from training.publishing import publish as module
from training.publishing.card import card
from training.publishing.gates import GateError
from training.publishing.publish import publish
from training.scorer.components import Parts
from training.scorer.transformations import of_views

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow


def test_bundles_are_stored_and_verified(published: Published) -> None:
    names = {"digits-cnn": "classification", "digits-vae": "generation", "digits-scorer": "anomaly"}
    directory = published.run_dir / "bundles"
    assert sorted(path.name for path in directory.iterdir()) == sorted(names)
    for name, task in names.items():
        loaded = bundle.load(directory / name)
        manifest = loaded.manifest
        assert manifest.task == task
        assert manifest.name == name
        assert manifest.class_names == published.dataset.class_names
        assert manifest.dataset.digest == published.dataset.digest
        assert manifest.dataset.splits == published.dataset.splits
        assert manifest.dataset.images == published.dataset.images_digest
        assert manifest.dataset.split_digests == published.dataset.split_digests
        assert (manifest.recipe, manifest.seed) == ("brief", 0)
        assert manifest.gates
        assert all(gate.passed for gate in manifest.gates)
        assert manifest.latent_size == (2 if task == "generation" else None)
        assert "card.md" in manifest.files


def test_publishing_again_gives_the_same_digests(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    again = publish(KINDS["cnn"], published.cnn, data, recipe="brief", seed=0, run_dir=tmp_path)
    again += publish(KINDS["vae"], published.vae, data, recipe="brief", seed=0, run_dir=tmp_path)
    again += publish(KINDS["scorer"], published.parts, data, recipe="brief", seed=0, run_dir=tmp_path)
    assert [b.digest for b in again] == [
        published.classifier.digest,
        published.generator.digest,
        published.scorer.digest,
    ]


def test_other_weights_give_another_digest_in_the_same_place(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    [first] = publish(KINDS["cnn"], published.cnn, data, recipe="brief", seed=0, run_dir=tmp_path, name="My Digits!")
    (first.path / "stale.txt").write_text("left by an older version")
    changed = nn.Sequential(published.cnn, Shift(0.01))
    [second] = publish(KINDS["cnn"], changed, data, recipe="brief", seed=0, run_dir=tmp_path, name="My Digits!")
    assert second.name == "my-digits-cnn"
    assert second.path == first.path
    assert second.digest != first.digest
    assert "stale.txt" not in second.manifest.files


class Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.by


def test_an_untrained_network_is_not_stored(published: Published, tmp_path: Path) -> None:
    torch.manual_seed(0)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(GateError, match=r"digits-cnn: accuracy 0\.\d+ is not at least 0\.97"):
        publish(KINDS["cnn"], untrained, published.dataset, recipe="none", seed=0, run_dir=tmp_path)
    assert not (tmp_path / "bundles" / "digits-cnn").exists()


def test_gates_are_decided_on_the_validation_split_and_the_test_split_selects_nothing(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With wrong labels in the test split the bundle is stored, with wrong ones in the validation split it is not."""
    data = published.dataset
    how: dict[str, Any] = {"recipe": "brief", "seed": 0, "run_dir": tmp_path}
    wrong = {role: replace(split := getattr(data, role), labels=(split.labels + 1) % 10) for role in data.splits}
    [stored] = publish(KINDS["cnn"], published.cnn, replace(data, test=wrong["test"]), **how)
    assert stored.manifest.metrics["accuracy"] < 0.1
    [gate] = stored.manifest.gates
    assert (gate.split, gate.metric) == ("validation", "accuracy")
    assert gate.value > 0.97
    measured: list[str] = []
    monkeypatch.setattr(module, "assess", lambda *given, **named: measured.append("test"))
    with pytest.raises(GateError, match="figures of the validation split"):
        publish(KINDS["cnn"], published.cnn, replace(data, validation=wrong["validation"]), name="other", **how)
    assert not measured, "a training that missed its gate must not be measured on the test split"
    text = (tmp_path / "bundles" / ".other-cnn.staged" / "card.md").read_text()
    assert "Not measured, for the bundle missed a gate." in text
    assert "| at least 0.97 | **no** |" in text


class Memory(nn.Module):
    """A generator that copies: of a class's training images, moved by a pixel, the one that the first latent points at.

    The class is the label, or, where it does not `obey`, what the second latent points at.
    """

    latent_size = 4

    def __init__(self, data: Dataset, obey: bool = True) -> None:
        super().__init__()
        self.obey = obey
        assert data.train.labels is not None
        rows = [data.train.images[data.train.labels == label][:60] for label in range(10)]
        rows = [
            np.concatenate([row, *(np.roll(row, step, axis) for step in (-1, 1) for axis in (2, 3))]) for row in rows
        ]
        self.images: torch.Tensor
        self.register_buffer("images", torch.stack([torch.from_numpy(row) for row in rows]).float() / 255)

    def draw(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        uniform = torch.special.ndtr(z)
        index = (uniform[:, 0] * 300).long().clamp(0, 299)
        chosen = (uniform[:, 1] * 10).long().clamp(0, 9)
        return self.images[labels if self.obey else chosen + 0 * labels, index]


def test_a_generator_that_ignores_its_labels_is_not_stored(published: Published, tmp_path: Path) -> None:
    """Its images are real and diverse, so only the judge finds it out: one in ten is right by chance."""
    data = published.dataset
    how: dict[str, Any] = {"recipe": "copy", "seed": 0, "run_dir": tmp_path, "judge": published.classifier}
    with pytest.raises(GateError) as caught:
        publish(KINDS["gan"], Memory(data, obey=False), data, **how)
    [accuracy] = re.findall(r"digits-gan: conditional_accuracy (\S+) is not at least 0\.9", str(caught.value))
    assert float(accuracy) == pytest.approx(0.1, abs=0.03)  # three standard errors of 1,000 draws
    assert "diversity" not in str(caught.value)


def test_a_generator_that_collapsed_is_not_stored(published: Published, tmp_path: Path) -> None:
    """One image a class, each of the right class: only the diversity finds it out."""
    data = published.dataset
    collapsed = Memory(data)
    collapsed.images[:] = collapsed.images[:, :1].clone()
    with pytest.raises(GateError, match="relative_diversity") as caught:
        publish(KINDS["gan"], collapsed, data, recipe="copy", seed=0, run_dir=tmp_path, judge=published.classifier)
    assert "conditional_accuracy" not in str(caught.value)


def test_a_generator_that_obeys_its_labels_passes(published: Published, tmp_path: Path) -> None:
    data = published.dataset
    how: dict[str, Any] = {"recipe": "copy", "seed": 0, "run_dir": tmp_path}
    [gan] = publish(KINDS["gan"], Memory(data), data, judge=published.classifier, **how)
    assert gan.manifest.metrics["conditional_accuracy"] > 0.95
    assert gan.manifest.metrics["class_total_variation"] < 0.05
    assert gan.manifest.metrics["relative_diversity"] == pytest.approx(1, abs=0.1)
    [unjudged] = publish(KINDS["gan"], Memory(data), data, **how)
    assert set(unjudged.manifest.metrics) == {"relative_diversity"}


def test_colour_images_without_labels(published: Published, tmp_path: Path) -> None:
    """A folder of one's own, 12 x 8 pixels: a VAE and a scorer need neither classes nor squares."""
    splits = []
    for role in published.dataset.splits:
        grey = getattr(published.dataset, role).images[:, :, 2:26:2, 6:22:2]
        splits.append(Split(np.concatenate([grey, grey // 2, grey // 3], axis=1)))
    dataset = Dataset("My shells", (), *splits)
    torch.manual_seed(0)
    vae = VAEConfig(latent_size=3, hidden=32).build(dataset.image_shape)
    pixels = torch.from_numpy(dataset.train.images).float() / 255
    optimiser = torch.optim.Adam(vae.parameters(), lr=1e-2)
    for _ in range(150):
        logits, mean, log_variance = vae(pixels)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, pixels, reduction="sum")
        loss = loss + 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum()
        optimiser.zero_grad()
        (loss / len(pixels)).backward()
        optimiser.step()
    how: dict[str, Any] = {"recipe": "brief", "seed": 1, "run_dir": tmp_path}
    [generator] = publish(KINDS["vae"], vae, dataset, **how)
    looked = of_views(dataset)  # eight, of which the classifier has fewer features
    views = CNNConfig(channels=(4, 8), hidden=6).build(looked.image_shape, len(looked.class_names))
    fit(views, looked, lambda x, y: nn.functional.cross_entropy(views(x), y), steps=100)
    [of_them] = publish(KINDS["cnn"], views, looked, **how)
    parts = Parts(generator, brief_defects(dataset), views=of_them, coreset_size=50)
    [scorer] = publish(KINDS["scorer"], parts, dataset, **how)
    assert scorer.manifest.statistics == ("reconstruction", "residual_peak", "latent", "variation", "defects", "views")
    assert scorer.manifest.parts == {
        "generator": f"my-shells-vae:{generator.digest}",
        "views": f"my-shells-views-cnn:{of_them.digest}",
    }
    assert (generator.name, scorer.name) == ("my-shells-vae", "my-shells-scorer")
    assert scorer.manifest.graphs["score"].outputs[2].shape == ("N", 12, 8)
    assert [tensor.name for tensor in scorer.manifest.graphs["score"].outputs] == [
        *("score", "p_value", "residual", "statistics", "look_alike")
    ]
    assert not any(name.startswith("class_share") for name in scorer.manifest.constants)
    flat = np.stack([np.full(dataset.image_shape, level, np.uint8) for level in (0, 127, 255)])
    assert all(np.isfinite(array).all() for array in score(scorer, flat).values())
    assert "auroc/rotated_90" not in scorer.manifest.metrics
    assert "Classes: none" in (scorer.path / "card.md").read_text()


@pytest.mark.parametrize("which", ["classifier", "generator", "scorer"])
def test_card_is_complete_and_its_code_runs(published: Published, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: bundle.Bundle = getattr(published, which)
    text = (stored.path / "card.md").read_text()
    for part in (
        "## Metrics",
        "## Gates",
        "## Parity",
        "## Intended use and limits",
        published.dataset.digest,
        "`brief`",
    ):
        assert part in text
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert sorted(pictures) == sorted(name for name in stored.manifest.files if name.endswith(".png"))
    [code] = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    monkeypatch.chdir(stored.path)
    exec(code, {})
    for foreign in (str(published.run_dir), os.path.expanduser("~") + "/"):
        assert foreign not in text


@pytest.mark.parametrize(("fields", "command"), [
    ({"recipe": "classic"}, "train --dataset digits --recipe classic --network cnn --seed 0"),
    ({"recipe": "demo --from other-cnn:0123 --freeze", "seed": 3},
     "train --dataset digits --recipe demo --from other-cnn:0123 --freeze --network cnn --seed 3"),
    ({"recipe": "demo, int8 of digits-cnn:0123"}, "quantize digits-cnn:0123 --dataset digits"),
    ({"recipe": "demo", "image": bundle.Image(channels=3, height=32, width=32),
      "dataset": bundle.Data(name="shells", digest="0" * 64, splits={})},
     "train --dataset folder:shells --image-size 32 --colour --recipe demo --network cnn --seed 0"),
    ({"recipe": "demo --trust-parts", "dataset": bundle.Data(name="folder-digits", digest="0" * 64, splits={})},
     "train --dataset folder:digits --image-size 28 --recipe demo --trust-parts --network cnn --seed 0"),
])  # fmt: skip
def test_the_card_says_what_makes_the_bundle_again(
    published: Published, fields: dict[str, object], command: str
) -> None:
    changed = published.classifier.manifest.model_copy(update=fields)
    assert f"- Made by: `duet {command}`\n" in card(bundle.Bundle(published.classifier.path, changed), [])


def test_the_card_tells_what_trusted_parts_risk(published: Published) -> None:
    assert "--trust-parts" not in card(published.scorer, [])
    trusted = published.scorer.manifest.model_copy(update={"recipe": "brief --trust-parts"})
    text = card(bundle.Bundle(published.scorer.path, trusted), [])
    assert "is trusted, not checked (`--trust-parts`). Images that are calibration or test images here may" in text


def test_the_card_names_the_judge_and_how_to_ask_for_it(published: Published) -> None:
    text = card(published.generator, [], published.classifier)
    assert " --network vae --seed 0 --judge digits-cnn`\n" in text
    assert f"- Judge of the samples: digits-cnn:{published.classifier.version}, digest" in text


def test_parity_table_has_a_row_for_each_graph(published: Published) -> None:
    lines = parity_table([published.classifier, published.generator, published.scorer]).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| digits-cnn | classify.onnx | 1, 3, 64 | ")
    assert lines[2].endswith(" | 100.00% |")


@pytest.mark.parametrize(("name", "expected"), [
    ("digits", "digits"),
    ("fashion-mnist", "fashion-mnist"),
    ("Sea Shells (2024)", "sea-shells-2024"),
    ("貝", "data"),
    ("a" * 49 + "-b", "a" * 49),
])  # fmt: skip
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected
    assert bundle.NAME.fullmatch(f"{slug(name)}-scorer")
