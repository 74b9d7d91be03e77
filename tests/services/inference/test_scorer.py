"""A scorer gives what its graph has, and knows what its numbers compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import BundleError
from services.inference.scorer import Scorer
from tests.services.scorers import OUTPUTS, PLAIN, SHARES, scorer_bundle, shade


def test_every_output_of_the_graph_is_given_by_one_of_the_operations(tmp_path: Path) -> None:
    scorer = Scorer(scorer_bundle(tmp_path / "rich"))
    images = shade(50, 150)
    assert set(scorer.run("score", {"images": images})) == {"score", "p_value", "label", "class_p_value"}
    outputs = scorer.run("score_map", {"images": images})
    assert set(outputs) == set(OUTPUTS)
    assert outputs["look_alike"].tolist() == (255 - images).tolist()
    assert np.exp(-outputs["statistics"]) == pytest.approx(
        np.stack([outputs["p_value"], outputs["class_p_value"]], axis=1)
    )
    assert scorer.class_sizes == tuple(round(400 * share) for share in SHARES)
    assert scorer.calibration_size == 400


def test_a_bundle_of_before_has_scores_and_maps_alone(tmp_path: Path) -> None:
    made = scorer_bundle(tmp_path / "plain", outputs=PLAIN)
    constants = {"smallest_p_value": 1 / 401, "residual_q99": 2.5}  # they did not say how many images
    object.__setattr__(made, "manifest", made.manifest.model_copy(update={"constants": constants}))
    scorer = Scorer(made)
    assert set(scorer.run("score_map", {"images": shade(9)})) == set(PLAIN)
    assert (scorer.calibration_size, scorer.class_sizes, scorer.optional) == (400, (), frozenset())
    assert scorer.drift.evidence() == {"rate": 0}


def test_the_drift_test_may_tolerate_another_share(tmp_path: Path) -> None:
    scorer = Scorer(scorer_bundle(tmp_path / "tiny"))
    assert (scorer.drift.tolerated, scorer.drift.slice_seconds) == (0.02, 10)
    assert list(scorer.drift.events.kinds) == ["rate", "class"]
    scorer.watch(0.1, 60)
    assert (scorer.drift.tolerated, scorer.drift.slice_seconds) == (0.1, 60)
    assert scorer.drift.events.high[0] > 0.1


@pytest.mark.parametrize("names", [(), ("one",), ("one", "two", "three")])
def test_a_statistic_without_a_name_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(BundleError, match=f"2 statistics, but {len(names)} names; export it again"):
        Scorer(scorer_bundle(tmp_path / "odd", statistics=names))
