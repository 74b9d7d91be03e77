"""The simulation of drift, shortened: its numbers are those of the detector, of simulated and of real p-values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.bench.drift import SHARES, SIZES, main


def run(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    main(["--quick", "--out", str(folder), *arguments])
    results: dict[str, Any] = json.loads((folder / name).read_text())
    assert min(results["cost_us_an_image"].values()) > 0
    return results


@pytest.mark.slow
def test_simulated_p_values(tmp_path: Path) -> None:
    results = run(tmp_path, "drift.json")
    assert [row["calibration_size"] for row in results["false_alarms"]] == list(SIZES)
    assert all(row["alarms"] == 0 and row["highest_evidence_log10"] > 0 for row in results["false_alarms"])
    found = {(row["calibration_size"], row["share"]): row for row in results["delays"]}
    assert set(found) == {(size, share) for size in SIZES for share in SHARES}
    for size in SIZES:
        by_share = [found[size, share]["median"] for share in SHARES]
        assert by_share == sorted(by_share, reverse=True)
        assert found[size, 1.0]["p90"] <= 128


@pytest.mark.parametrize("labelled", [False, True])
def test_real_p_values(tmp_path: Path, labelled: bool) -> None:
    random = np.random.default_rng(0)
    arrays = {"normal": random.integers(1, 274, 500) / 273, "anomalous": np.full(300, 1 / 273), "calibration_size": 272}
    if labelled:
        labels = {"normal_labels": random.integers(0, 2, 500), "anomalous_labels": np.zeros(300, int)}
        arrays |= labels | {"class_sizes": [136, 136]}
    np.savez(tmp_path / "real.npz", **arrays)
    results = run(tmp_path, "drift_real.json", "--p-values", str(tmp_path / "real.npz"))
    assert [row["alarms"] for row in results["false_alarms"]] == [0]
    assert [row["without_alarm"] for row in results["delays"]] == [0] * len(SHARES)
    assert results["delays"][-1]["median"] == 64
