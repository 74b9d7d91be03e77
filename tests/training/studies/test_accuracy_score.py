from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.bundle import load
from training.data import load as load_data
from training.studies import accuracy_score


@pytest.mark.slow
def test_samples_alone_teach_the_classes(model_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_score, "STEPS", 90)
    monkeypatch.setattr(accuracy_score, "SAMPLES", 1500)
    gan = load(sorted((model_store / "models" / "digits-gan").glob("*/"))[0])
    score = accuracy_score.classification_accuracy_score(gan, load_data("digits"))
    assert 0.6 < score["classification_accuracy_score"] <= score["classification_accuracy_score/real"] + 0.05


@pytest.mark.slow
def test_a_generator_without_classes_has_none(model_store: Path) -> None:
    vae = load(sorted((model_store / "models" / "digits-vae").glob("*/"))[0])
    assert accuracy_score.classification_accuracy_score(vae, load_data("digits")) == {}
