from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.data import Dataset, Split, load
from training.loops.run import RunError
from training.recipes import RECIPES
from training.train import train


def test_data_without_labels_leave_the_cnn_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = load("digits")
    splits = {role: Split(getattr(digits, role).images) for role in ("train", "validation", "calibration", "test")}
    unlabelled = Dataset("unlabelled", (), **splits)
    bundles = train(unlabelled, RECIPES["demo"], ["cnn"], seed=0, out=tmp_path, resume=False, accelerator="cpu")
    assert bundles == []
    assert "cnn: left out, for unlabelled has no labels to learn" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_recipe_lacks_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baselines = RECIPES["baselines"]
    networks = ["vae", "gan", "scorer"]
    bundles = train(load("digits"), baselines, networks, seed=0, out=tmp_path, resume=False, accelerator="cpu")
    assert bundles == []
    said = capsys.readouterr().err
    assert all(f"{network}: left out, for recipe baselines has none" in said for network in networks)


def test_a_scorer_of_classes_needs_a_classifier(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scorer: digits has classes, so a classifier is needed"):
        train(load("digits"), RECIPES["demo"], ["scorer"], seed=0, out=tmp_path, resume=False, accelerator="cpu")


def test_a_second_run_ends_before_anything_is_trained(tmp_path: Path) -> None:
    digits, demo = load("digits"), RECIPES["demo"]
    left = tmp_path / "digits-demo-0" / "gan" / "checkpoint.pt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"hours")
    with pytest.raises(RunError, match=r"gan/checkpoint\.pt: an earlier run left this checkpoint; give --resume"):
        train(digits, demo, ["cnn", "gan"], seed=0, out=tmp_path, resume=False, accelerator="cpu")
    assert left.read_bytes() == b"hours"
    assert not (left.parents[1] / "cnn").exists()


@pytest.mark.slow
def test_trains_publishes_and_publishes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    digits, demo = load("digits"), RECIPES["demo"]
    demo = demo.changed(cnn=replace(demo.networks["cnn"], epochs=14))
    (first,) = train(digits, demo, ["cnn"], seed=0, out=tmp_path, resume=False, accelerator="cpu")
    assert first.manifest.metrics["accuracy"] >= 0.985
    assert "digits-cnn" in capsys.readouterr().out
    directory = tmp_path / "digits-demo-0" / "cnn"
    assert {"config.json", "metrics.jsonl", "checkpoint.pt", "pictures"} <= {path.name for path in directory.iterdir()}
    assert (directory / "pictures" / "loss.png").exists()
    assert (first.path / "training.png").read_bytes() == (directory / "pictures" / "loss.png").read_bytes()
    assert "(training.png)" in (first.path / "card.md").read_text()
    minutes = json.loads((directory / "notes.json").read_text())["cpu_minutes"]
    assert minutes > 0

    log = (directory / "metrics.jsonl").read_text()
    (again,) = train(digits, demo, ["cnn"], seed=0, out=tmp_path, resume=True, accelerator="cpu")
    assert again.digest == first.digest
    assert (directory / "metrics.jsonl").read_text() == log

    (directory / "config.json").write_text((directory / "config.json").read_text().replace(digits.digest, "0" * 64))
    with pytest.raises(RunError, match="digest"):
        train(digits, demo, ["cnn"], seed=0, out=tmp_path, resume=True, accelerator="cpu")
