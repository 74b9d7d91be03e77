"""From a folder of good plates to a scorer that finds scratches, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from services.inference import bundle
from tests.training.plates import SIDE, plates, scratched, write
from training.cli import app
from training.evaluation.anomaly import auroc, score


@pytest.mark.slow
def test_scratches_are_found_on_plates_that_none_was_seen_on(tmp_path: Path, empty_store: Path) -> None:
    folder = write(plates(300), tmp_path / "Plates")
    arguments = [
        *("train", "--dataset", f"folder:{folder}", "--image-size", str(SIDE), "--colour"),
        *("--recipe", "demo", "--network", "scorer", "--accelerator", "cpu", "--out", str(tmp_path / "runs")),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "stored plates-scorer:" in result.output
    run = tmp_path / "runs" / "Plates-demo-0" / "scorer"
    scorer = bundle.load(run / "bundles" / "plates-scorer")
    assert set(scorer.manifest.parts) == {"generator", "views"}
    assert json.loads((run / "config.json").read_text())["config"]["parts"] == {}
    assert all((run / name / "metrics.jsonl").exists() for name in (".", "views", "vae"))

    good = plates(80, seed=1)
    bad, where = scratched(good, seed=2)
    normal, found = score(scorer, good), score(scorer, bad)
    assert auroc(normal["score"], found["score"]) > 0.9
    assert (normal["p_value"] <= 0.1).mean() < 0.3, "30 calibration images: a valid share, give or take"
    on_it = np.array([heat[mark].mean() for heat, mark in zip(found["residual"], where, strict=True)])
    elsewhere = np.array([heat[~mark].mean() for heat, mark in zip(found["residual"], where, strict=True)])
    assert (on_it > elsewhere).mean() > 0.9
    assert np.median(on_it / elsewhere) > 3
