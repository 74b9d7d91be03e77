from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

from services.inference.bundle import Bundle, load
from training.data import Dataset
from training.data import load as load_data
from training.export.int8 import QuantizationError, _quantize_graph
from training.graphs.inference import predict
from training.kinds import KINDS, product_of
from training.networks.residual_cnn import ResidualCNNConfig
from training.publishing import quantize as module
from training.publishing.publish import publish
from training.publishing.quantize import SUFFIX, quantize, wins
from training.publishing.report import evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="module")
def fp32(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A residual network with class activation, temperature and prediction sets, trained for a few seconds."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = ResidualCNNConfig(channels=16).build(dataset.image_shape, 10)
    assert dataset.train.labels is not None
    pixels, labels = torch.from_numpy(dataset.train.images).float() / 255, torch.from_numpy(dataset.train.labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(250):
        rows = torch.randint(len(pixels), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(pixels[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    run = tmp_path_factory.mktemp("run")
    return publish(KINDS["cnn"], network.eval(), dataset, recipe="brief", seed=0, run_dir=run)[0]


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 447 images is more than a tenth of a point, and this network is small and hastily trained."""
    monkeypatch.setattr(module, "LOSS", 0.03)


@pytest.fixture(scope="module")
def both(fp32: Bundle, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOSS", 0.03)
        return fp32, quantize(product_of(fp32.manifest), fp32, dataset, tmp_path_factory.mktemp("int8"))[0]


def test_int8_is_a_bundle_of_its_own_that_verifies_and_repeats_its_metrics(
    both: tuple[Bundle, Bundle], dataset: Dataset, tmp_path: Path
) -> None:
    fp32, int8 = both
    assert int8.name == fp32.name + SUFFIX
    assert int8.digest != fp32.digest
    assert load(int8.path).digest == int8.digest
    assert fp32.version in int8.manifest.recipe
    metrics = evaluate(product_of(int8.manifest), int8, dataset, out=tmp_path)
    assert metrics.items() <= int8.manifest.metrics.items()
    loss = fp32.manifest.metrics["accuracy"] - metrics["accuracy"]
    assert int8.manifest.metrics["accuracy_loss"] == pytest.approx(loss)
    text = (int8.path / "card.md").read_text()
    assert "## int8" in text
    assert "The temperature was fitted again, on the validation split." in text
    assert "The threshold of the prediction sets was fitted again, on the calibration split." in text
    assert f"Made by: `duet quantize digits-cnn:{fp32.version} --dataset digits`" in text


def test_weights_are_eight_bits_but_for_the_last_layer(both: tuple[Bundle, Bundle]) -> None:
    fp32, int8 = both
    weights = {w.name: w for w in onnx.load(int8.graph_path("classify")).graph.initializer if len(w.dims) > 1}
    kinds = {onnx.helper.tensor_dtype_to_np_dtype(w.data_type).name for w in weights.values() if len(w.dims) == 4}
    assert "int8" in kinds
    floats = [w for w in weights.values() if w.data_type == onnx.TensorProto.FLOAT]
    assert {w.dims[0] for w in floats} == {10}  # the dense layer, and as the class activation's filter
    assert int8.graph_path("classify").stat().st_size < 0.5 * fp32.graph_path("classify").stat().st_size


def test_the_class_activation_still_sums_up_to_the_logit(both: tuple[Bundle, Bundle], dataset: Dataset) -> None:
    """Their difference is the bias over the temperature: one number a class, whatever the image."""
    outputs = predict(both[1], dataset.test.images)
    bias = outputs["logits"] - outputs["class_activation"].mean(axis=(2, 3))
    assert np.ptp(bias, axis=0).max() < 1e-4 * np.abs(outputs["logits"]).max()


def test_temperature_and_threshold_are_fitted_again(both: tuple[Bundle, Bundle], dataset: Dataset) -> None:
    fp32, int8 = both
    before, after = fp32.manifest.constants, int8.manifest.constants
    assert after["temperature"] != before["temperature"]
    outputs = predict(int8, dataset.calibration.images)
    expected = outputs["probabilities"] >= np.float32(after["set_threshold"])
    assert np.array_equal(outputs["prediction_set"], expected)
    # A conformal threshold is one of the calibration probabilities.
    assert np.isclose(outputs["probabilities"], after["set_threshold"], rtol=1e-6).any()
    logits = outputs["logits"].astype(np.float64)
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert outputs["probabilities"] == pytest.approx(softmax / softmax.sum(axis=1, keepdims=True), abs=1e-5)


@pytest.mark.usefixtures("lenient")
def test_equal_weights_give_equal_digests(both: tuple[Bundle, Bundle], dataset: Dataset, tmp_path: Path) -> None:
    assert quantize(product_of(both[0].manifest), both[0], dataset, tmp_path)[0].digest == both[1].digest


def test_a_loss_beyond_the_bound_is_not_sealed(
    fp32: Bundle, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from black images only: a fault injected into the calibration. The test split is not measured."""
    measured: list[str] = []
    monkeypatch.setattr(module, "assess", lambda *given, **named: measured.append("test"))
    whole = _quantize_graph
    monkeypatch.setattr(module, "_quantize_graph", lambda source, target, images: whole(source, target, images * 0))
    with pytest.raises(QuantizationError, match=r"digits-cnn-int8 is not stored: it loses .*\n\n\| measure"):
        quantize(product_of(fp32.manifest), fp32, dataset, tmp_path)
    assert not (tmp_path / "digits-cnn-int8").exists()
    assert not measured


def test_other_data_and_other_bundles_are_refused(fp32: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    moved = dataclasses.replace(dataset, calibration=dataset.validation)
    with pytest.raises(QuantizationError, match=r"was trained with digits .*, but the data are digits"):
        quantize(product_of(fp32.manifest), fp32, moved, tmp_path)
    scorer = Bundle(fp32.path, fp32.manifest.model_copy(update={"task": "anomaly"}))
    with pytest.raises(QuantizationError, match="is a bundle for anomaly; give a classifier"):
        quantize(product_of(scorer.manifest), scorer, dataset, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("lenient")
def test_int8_wins_only_where_it_is_smaller_and_faster_at_every_batch(
    fp32: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    comparison = quantize(product_of(fp32.manifest), fp32, dataset, tmp_path)[1]
    first, second = comparison.first, comparison.second

    def verdict(**of_int8: object) -> bool:
        return wins(dataclasses.replace(comparison, second=dataclasses.replace(second, **of_int8)))  # type: ignore[arg-type]

    slow, fast = ({b: first.microseconds[b] * factor for b in (1, 64)} for factor in (1.5, 0.5))
    assert verdict(microseconds=fast)
    assert not verdict(microseconds=slow)
    assert not verdict(microseconds={1: fast[1], 64: slow[64]})
    assert not verdict(microseconds=fast, graph_bytes=first.graph_bytes)
