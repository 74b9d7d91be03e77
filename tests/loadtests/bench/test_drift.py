"""The simulation of drift, shortened: its numbers are those of the detector, of simulated and of real p-values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.bench import drift
from loadtests.bench.drift import SHARES, SIZES, TOLERATED_SHARES, main
from loadtests.bench.drift_runs import BEFORE, Clock
from loadtests.bench.drift_source import simulated

DATA = Path(os.environ.get("DUET_DATA_DIR", "nowhere"))


def read(folder: Path, name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / name).read_text())
    assert results["by_proof"]["alarm_evidence"] == 1e8
    return dict(results["by_simulation"])


@pytest.mark.slow
def test_simulated_p_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUET_DATA_DIR", raising=False)
    main(["--quick", "--out", str(tmp_path)])
    results = read(tmp_path, "drift.json")
    assert not (tmp_path / "drift_real.json").exists()
    assert min(results["cost_us_an_image"].values()) > 0
    assert results["memory"]["streams"] == 65
    assert 2**20 < results["memory"]["bytes"] < 64 * 2**20
    assert [(row["calibration_size"], row["share"]) for row in results["false_alarms"]] == [
        (size, share) for size in SIZES for share in TOLERATED_SHARES
    ]
    assert all(row["alarms"] == 0 and row["highest_evidence_log10"] > 0 for row in results["false_alarms"])
    assert results["false_alarms"][-1]["alarms_with_none_tolerated"] == 3
    found = {(row["calibration_size"], row["share"], row["images_a_slice"]): row for row in results["delays"]}
    for size in SIZES:
        by_share = [found[size, share, 8]["median"] for share in SHARES]
        assert by_share == sorted(by_share, reverse=True)
        assert found[size, 1.0, 8]["p90"] <= 12
    all_caught = results["all_caught"]
    assert [row["median"] for row in all_caught["delays"]] <= [found[5000, share, 8]["median"] for share in SHARES]
    assert all_caught["clients"]["alarms_that_name_exactly_them"] == 2
    assert [row["without_end"] for row in results["ends"]] == [0] * len(results["ends"])
    one, five = results["clients"]
    assert (one["alarms"], five["alarms"], five["alarms_that_name_exactly_them"]) == (0, 2, 2)
    assert [row["alarms"] for row in results["bursts"]] == [0] * 4


@pytest.mark.slow
def test_p_values_of_the_reference_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not DATA.exists():
        pytest.skip("DUET_DATA_DIR names no folder with MNIST and Fashion-MNIST")
    monkeypatch.setattr(drift, "_simulated", lambda *_, **__: {"delays": []})
    main(["--quick", "--out", str(tmp_path), "--data", str(DATA)])
    results = read(tmp_path, "drift_real.json")
    assert [row["alarms"] for row in results["false_alarms"]] == [0, 0, 0]
    two = results["two_clients"]
    assert two["alarms"] == two["alarms_that_name_exactly_the_second"] == two["runs"] == 5
    assert 8 <= two["slices_to_the_alarm"]["least"] <= two["slices_to_the_alarm"]["most"] <= 20


def test_a_source_draws_with_its_probabilities() -> None:
    source = simulated(5000, 0)
    assert source.cells(0.3).sum() == pytest.approx(1)
    assert source.cells(0.3)[0] == pytest.approx(0.7 * source.normal[0] + 0.3 * source.strange[0])
    p_values, labels = source.draw(np.random.default_rng(0), 20_000, 0.3)
    assert np.mean(np.array(p_values) <= 0.01) == pytest.approx(source.cells(0.3)[0], abs=0.02)
    assert np.bincount(labels) / 20_000 == pytest.approx(source.normal_classes, abs=0.02)


def test_a_run_has_a_clock_and_images_that_differ() -> None:
    run = Clock(simulated(300, 0), 0)
    for _ in range(BEFORE):
        run.send(3, 0)
        run.tick()
    assert (run.drift.slices, run.drift.images, run.drift.repeats) == (BEFORE, 3 * BEFORE, 0)
