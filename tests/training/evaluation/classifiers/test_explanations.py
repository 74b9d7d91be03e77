from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from training.evaluation.classifiers.explanations import (
    SHARES,
    causal_curves,
    check,
    class_activation,
    markdown,
    rank_correlation,
    shuffled,
)
from training.graphs.session import open_graph, run

if TYPE_CHECKING:
    from conftest import Published

SIDE = 8


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """A classifier that looks at the upper left quarter only: class 1 is as probable as that quarter is bright."""
    weight = np.zeros((SIDE, SIDE, 2), np.float32)
    weight[: SIDE // 2, : SIDE // 2, 1] = 1 / (255 * (SIDE // 2) ** 2)
    constants = {
        "weight": weight.reshape(-1, 2),
        "bias": np.array([1, 0], np.float32),
        "turn": np.array([[0, 0], [-1, 1]], np.float32),
        "flat": np.array([-1, SIDE * SIDE], np.int64),
        "map": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2),
        "ones": np.ones(3, np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weight"], ["share"]),  # 0, brightness
        helper.make_node("MatMul", ["share", "turn"], ["signed"]),  # -brightness, brightness
        helper.make_node("Add", ["signed", "bias"], ["probabilities"]),
        helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "ones"], ["repeats"], axis=0),
        helper.make_node("Tile", ["map", "repeats"], ["class_activation"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "reader",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, SIDE, SIDE])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
                helper.make_tensor_value_info("class_activation", TensorProto.FLOAT, ["N", 2, 2, 2]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "classify.onnx")
    return tmp_path / "classify.onnx"


def lit() -> np.ndarray:
    """The upper left quarter is white, the rest black, so that the median is black."""
    images = np.zeros((3, 1, SIDE, SIDE), np.uint8)
    images[:, :, : SIDE // 2, : SIDE // 2] = 255
    return images


def test_the_right_map_deletes_at_once_and_the_wrong_one_at_last(reader: Path) -> None:
    images, labels = lit(), np.ones(3, np.int64)
    session = open_graph(reader)
    right = images[:, 0].astype(float)
    deletion, insertion = causal_curves(session, images, labels, right)
    assert deletion.shape == insertion.shape == (3, len(SHARES))
    quarter = np.array([min(1.0, round(share * 64) / 16) for share in SHARES])
    assert deletion == pytest.approx(np.tile(1 - quarter, (3, 1)), abs=1e-5)
    assert insertion == pytest.approx(np.tile(quarter, (3, 1)), abs=1e-5)

    deletion, insertion = causal_curves(session, images, labels, -right)
    late = np.array([max(0.0, (round(share * 64) - 48) / 16) for share in SHARES])
    assert deletion == pytest.approx(np.tile(1 - late, (3, 1)), abs=1e-5)
    assert insertion == pytest.approx(np.tile(late, (3, 1)), abs=1e-5)


def test_shuffled_weights_are_the_same_numbers_elsewhere(reader: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, SIDE, SIDE), dtype=np.uint8)
    as_it_is, mixed = (run(session, {"images": images}) for session in (open_graph(reader), shuffled(reader, 0)))
    assert np.abs(as_it_is["probabilities"] - mixed["probabilities"]).max() > 0.01
    before, after = (np.sort(outputs["class_activation"][0].ravel()) for outputs in (as_it_is, mixed))
    assert np.array_equal(before, after)
    again = run(shuffled(reader, 0), {"images": images})
    assert np.array_equal(mixed["probabilities"], again["probabilities"])


def test_class_activation_is_that_of_each_images_class(reader: Path) -> None:
    maps = class_activation(open_graph(reader), lit(), np.array([0, 1, 0]))
    assert maps.shape == (3, SIDE, SIDE)
    assert maps[:, 0, 0].tolist() == [0, 4, 0]
    assert maps[:, -1, -1].tolist() == [3, 7, 3]


def test_rank_correlation_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 9, (2, 5, 6, 7)).astype(float)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert rank_correlation(first, second) == pytest.approx(np.array(expected))
    assert rank_correlation(first, 3 * first + 1) == pytest.approx(np.ones(5))
    assert rank_correlation(first, np.zeros_like(first)).tolist() == [0] * 5


@pytest.mark.slow
def test_maps_that_ask_a_trained_classifier_beat_random_ones(published: Published) -> None:
    checked = check(published.classifier, published.dataset.test.images[:12])
    assert {"occlusion", "RISE", "ink", "centre", "random"} <= set(checked)
    for name in ("occlusion", "RISE"):
        assert checked[name].deletion_area[0] < checked["random"].deletion_area[0]
        assert checked[name].insertion_area[0] > checked["random"].insertion_area[0]
        correlation = checked[name].correlation
        assert correlation is not None
        assert abs(correlation) < 0.5
    assert checked["random"].correlation is None
    assert checked["random"].beats == ()
    assert "random" in checked["ink"].beats, "a digit is its ink"
    for one in checked.values():
        for beaten in (checked[name] for name in one.beats):
            assert one.deletion_area[0] < beaten.deletion_area[0]
            assert one.insertion_area[0] > beaten.insertion_area[0]
    assert markdown(checked).splitlines()[-1].endswith("|  | none |")
