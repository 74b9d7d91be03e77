from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle, load
from training.data import load as load_data
from training.evaluation.generators import samplers
from training.graphs.inference import balanced_labels
from training.graphs.session import open_graph, run


@pytest.fixture(scope="module")
def gan(model_store: Path) -> Bundle:
    return load(next((model_store / "models" / "digits-gan").glob("*/")))


@pytest.mark.slow
def test_chosen_samples_look_more_real_to_the_discriminator(gan: Bundle) -> None:
    labels = np.arange(60, dtype=np.int64) % 10
    discriminator = open_graph(gan.graph_path("discriminate"))
    ratios = [
        run(discriminator, {"images": samplers.sampled(gan, 3, labels, chosen=chosen), "labels": labels})["log_ratio"]
        for chosen in (False, True)
    ]
    assert ratios[1].mean() > ratios[0].mean() + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [False, True])
def test_samples_do_not_depend_on_how_many_are_drawn_together(
    gan: Bundle, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(7, dtype=np.int64)
    together = samplers.sampled(gan, 0, labels, chosen=chosen)
    monkeypatch.setattr(samplers, "TOGETHER", 3)
    np.testing.assert_array_equal(samplers.sampled(gan, 0, labels, chosen=chosen), together)


@pytest.mark.slow
def test_both_samplers_are_measured_with_their_spread(
    gan: Bundle, model_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "MINIMUM", 60)
    monkeypatch.setattr(samplers, "SAMPLES", 60)
    judge = load(next((model_store / "models" / "digits-cnn").glob("*/")))
    metrics = samplers.samplers_metrics(gan, load_data("digits"), judge)
    for name in samplers.MEASURES:
        for sampler in ("prior", "metropolis-hastings"):
            assert np.isfinite(metrics[f"{name}/{sampler}"])
            assert metrics[f"{name}_sd/{sampler}"] >= 0
    assert metrics["conditional_accuracy/prior"] > 0.8
    assert metrics["frechet_distance_gain"] < 1
    vae = load(next((model_store / "models" / "digits-vae").glob("*/")))
    assert balanced_labels(vae, 3) is None
    assert samplers.samplers_metrics(vae, load_data("digits"), judge) == {}
