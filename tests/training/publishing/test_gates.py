from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom  # type: ignore[import-untyped]

from services.inference.bundle import Data, Gate, Graph, Image, Manifest, Parity
from training.kinds import product_of
from training.metrics.detection import false_positive_band
from training.publishing.gates import GateError, check

GRAPH = Graph(file="g.onnx", opset=20, inputs=(), outputs=(), parity=Parity(batch_sizes=(1,), max_abs_diff=0, bound=1))


def manifest(task: Any, dataset: str = "mnist", classes: int = 10, graph: str = "decode", **fields: Any) -> Manifest:
    return Manifest(
        name=f"{dataset}-x",
        task=task,
        network="x",
        recipe="x",
        seed=0,
        dataset=Data(name=dataset, digest="", splits={"validation": 1000}),
        image=Image(channels=1, height=2, width=2),
        class_names=tuple(str(i) for i in range(classes)),
        graphs={graph: GRAPH},
        metrics={},
        versions={},
        **fields,
    )


def gates(manifest: Manifest, metrics: dict[str, float]) -> tuple[Gate, ...]:
    return product_of(manifest).gates(manifest, metrics)


def passes(manifest: Manifest, metrics: dict[str, float]) -> bool:
    return all(gate.passed for gate in gates(manifest, metrics))


@pytest.mark.parametrize(("dataset", "floor"), [("digits", 0.97), ("mnist", 0.985), ("fashion-mnist", 0.86)])
def test_known_data_have_an_accuracy_floor(dataset: str, floor: float) -> None:
    assert passes(manifest("classification", dataset), {"accuracy": floor})
    assert not passes(manifest("classification", dataset), {"accuracy": floor - 1e-4})


def test_gates_say_that_their_values_are_of_the_validation_split() -> None:
    [gate] = gates(manifest("classification", "mnist"), {"accuracy": 0.99})
    assert gate.split == "validation"


@pytest.mark.parametrize(("classes", "bound"), [(1, 1.0), (2, 0.75), (10, 0.15)])
def test_a_folder_must_beat_chance_by_half(classes: int, bound: float) -> None:
    """Nine images of ten in one class: 0.9 accuracy is no merit there, so the mean recall counts."""
    own = manifest("classification", "shells", classes)
    assert passes(own, {"accuracy": 0.0, "macro_recall": bound})
    assert not passes(own, {"accuracy": 0.9, "macro_recall": bound - 1e-3})


def test_a_vae_must_leave_the_mean_image() -> None:
    own = manifest("generation", "shells", graph="encode")
    bounds = {"mean_image_loss": 200.0, "pixel_entropy": 50.0}
    assert passes(own, {"negative_elbo": 185.0, **bounds})
    assert not passes(own, {"negative_elbo": 185.1, **bounds})
    assert not passes(manifest("generation", graph="encode"), {"negative_elbo": 170.0, **bounds})
    assert passes(manifest("generation", graph="encode"), {"negative_elbo": 160.0, **bounds})


def test_a_conditional_vae_may_draw_smoother_images_than_a_gan() -> None:
    seen = {"relative_diversity": 1.0, "conditional_accuracy": 0.5, "near_duplicates": 0.0}
    gan = manifest("generation", "fashion-mnist")
    vae = manifest("generation", "fashion-mnist", graph="encode").model_copy(update={"network": "cvae"})
    assert passes(gan, {**seen, "coverage_ratio": 0.5})
    assert not passes(gan, {**seen, "coverage_ratio": 0.49})
    assert passes(vae, {**seen, "coverage_ratio": 0.4})
    assert not passes(vae, {**seen, "coverage_ratio": 0.39})


def test_a_gan_must_be_diverse_and_obey_its_labels() -> None:
    own = manifest("generation")
    assert passes(own, {"relative_diversity": 0.5, "conditional_accuracy": 0.9})
    assert not passes(own, {"relative_diversity": 0.49, "conditional_accuracy": 0.9})
    assert not passes(own, {"relative_diversity": 0.5, "conditional_accuracy": 0.89})
    assert passes(manifest("generation", "shells"), {"relative_diversity": 0.5, "conditional_accuracy": 0.15})
    assert passes(own, {"relative_diversity": 0.5}), "without a judge there is no accuracy to bound"


def test_a_scorer_must_be_valid_and_not_idle() -> None:
    own = manifest("anomaly", graph="score", constants={"calibration_size": 1000.0})
    low, high = false_positive_band(0.05, 1000, 1000)
    for rate, expected in [(low, True), (0.05, True), (high, True), (low - 1e-3, False), (high + 1e-3, False)]:
        assert passes(own, {"false_positive_rate/0.05": rate, "auroc/uniform_noise": 1.0}) == expected
    assert not passes(own, {"false_positive_rate/0.05": 0.05, "auroc/uniform_noise": 0.5})


@pytest.mark.parametrize(("calibration", "others"), [(272, 447), (5000, 10000), (60, 40), (19, 1), (5000, 100_000)])
def test_band_agrees_with_scipy(calibration: int, others: int) -> None:
    k = (calibration + 1) // 20
    expected = betabinom(others, k, calibration + 1 - k).ppf([0.0005, 0.9995]) / others
    np.testing.assert_allclose(false_positive_band(0.05, calibration, others), expected)


def test_band_agrees_with_simulated_conformal_p_values() -> None:
    generator = np.random.default_rng(0)
    low, high = false_positive_band(0.05, 99, 50)
    calibration, test = generator.random((4000, 99, 1)), generator.random((4000, 1, 50))
    p_values = (1 + (calibration >= test).sum(axis=1)) / 100
    rates = (p_values <= 0.05).mean(axis=1)
    assert ((low <= rates) & (rates <= high)).mean() == pytest.approx(0.999, abs=0.002)
    assert (rates == high).any(), "the band is not wider than it need be"


def test_too_few_calibration_images_never_reject() -> None:
    assert false_positive_band(0.05, 18, 1000) == (0, 0)


def test_every_failure_is_named_with_number_and_bound() -> None:
    first = manifest("classification", "digits")
    second = manifest("generation", "digits")
    first = first.model_copy(update={"gates": gates(first, {"accuracy": 0.5})})
    second = second.model_copy(
        update={"gates": gates(second, {"relative_diversity": 0.25, "conditional_accuracy": 0.125})}
    )
    with pytest.raises(GateError) as caught:
        check([first, second])
    for part in ("digits-x: accuracy 0.5 is not at least 0.97", "relative_diversity 0.25", "0.125 is not at least 0.9"):
        assert part in str(caught.value)
    assert "figures of the validation split" in str(caught.value)
    check([first.model_copy(update={"gates": ()})])


def test_a_baseline_has_only_to_beat_chance() -> None:
    svm = manifest("classification", "mnist").model_copy(update={"network": "svm"})
    [gate] = gates(svm, {"accuracy": 0.9, "macro_recall": 0.9})
    assert (gate.metric, gate.bound) == ("macro_recall", pytest.approx(0.15))
