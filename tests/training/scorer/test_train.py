"""From a folder of good plates to a scorer that finds scratches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.plates import SIDE, plates, scratched, write
from training.data import load
from training.graphs.inference import score
from training.metrics.detection import auroc
from training.recipes import RECIPES
from training.train import train


@pytest.mark.nightly  # a minute
def test_scratches_are_found_though_none_was_ever_seen(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = write(plates(160), tmp_path / "Plates")
    demo, how = RECIPES["demo"], RECIPES["demo"].networks["scorer"]
    assert how is not None
    # The demo's networks, trained for fewer steps.
    brief = replace(
        how,
        defects=replace(how.defects, steps=50, batch_size=16, arithmetic="float32"),
        vae=replace(how.vae, epochs=4),
        views=replace(how.views, epochs=1),
        coreset_size=100,
    )
    dataset = load(f"folder:{folder}", image_size=SIDE, colour=True)
    recipe = demo.changed(scorer=brief)
    [scorer] = train(dataset, recipe, ["scorer"], seed=0, out=tmp_path, resume=False, accelerator="cpu")
    assert (scorer.name, scorer.manifest.image.shape) == ("plates-scorer", (3, SIDE, SIDE))
    assert set(scorer.manifest.parts) == {"generator", "views"}
    run = tmp_path / "Plates-demo-0" / "scorer"
    assert json.loads((run / "config.json").read_text())["config"]["parts"] == {}
    assert all((run / name / "metrics.jsonl").exists() for name in (".", "views", "vae"))

    good = plates(50, seed=1)
    bad, where = scratched(good, seed=2)
    normal, found = score(scorer, good), score(scorer, bad)
    assert auroc(normal["score"], found["score"]) > 0.9
    on_it = np.array([heat[mark].mean() for heat, mark in zip(found["residual"], where, strict=True)])
    elsewhere = np.array([heat[~mark].mean() for heat, mark in zip(found["residual"], where, strict=True)])
    assert (on_it > elsewhere).mean() > 0.9
    assert np.median(on_it / elsewhere) > 2
