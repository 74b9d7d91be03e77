"""A scorer by hand: how bright an image of the digits is, and how its neighbouring pixels differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from services.inference.bundle import Bundle, Data, Graph, Image, Manifest, Parity, file_record
from training.data import Dataset, load

GRAPH = """<ir_version: 9, opset_import: ["": 20]>
scorer (uint8[N,1,28,28] images) => (
    float[N] score, float[N] p_value, float[N,28,28] residual, float[N,2] statistics
) <float[M] calibration = {calibration}> {{
    pixels = Cast <to = 1> (images)
    channel = Constant <value_ints = [1]> ()
    area = Constant <value_ints = [1, 2]> ()
    grey = ReduceMean <keepdims = 0> (pixels, channel)
    usual = Constant <value_float = {mean}> ()
    excess = Sub (grey, usual)
    residual = Abs (excess)
    brightness = ReduceMean <keepdims = 0> (excess, area)
    first = Constant <value_ints = [1]> ()
    end = Constant <value_ints = [28]> ()
    axis = Constant <value_ints = [2]> ()
    start = Constant <value_ints = [0]> ()
    last = Constant <value_ints = [27]> ()
    right = Slice (grey, first, end, axis)
    left = Slice (grey, start, last, axis)
    step = Sub (right, left)
    height = Abs (step)
    roughness = ReduceMean <keepdims = 0> (height, area)
    both = Concat <axis = 1> (bright_column, rough_column)
    statistics = Identity (both)
    square = Mul (both, both)
    score = ReduceSum <keepdims = 0> (square, first)
    row = Unsqueeze (score, first)
    above = GreaterOrEqual (calibration, row)
    counted = Cast <to = 1> (above)
    rank = ReduceSum <keepdims = 0> (counted, first)
    one = Constant <value_float = 1.0> ()
    places = Constant <value_float = {places}> ()
    ranked = Add (rank, one)
    p_value = Div (ranked, places)
}}"""
GRAPH = GRAPH.replace(
    "    both =",
    "    bright_column = Unsqueeze (brightness, first)\n    rough_column = Unsqueeze (roughness, first)\n    both =",
)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="session")
def small_scorer(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return scorer_of(digits, tmp_path_factory.mktemp("scorer"))


def scorer_of(dataset: Dataset, directory: Path) -> Bundle:
    """Calibrated on `dataset`; not sealed."""
    images = dataset.calibration.images[:, 0].astype(np.float32)
    mean = float(dataset.train.images.mean())
    brightness, roughness = (images - np.float32(mean)).mean(axis=(1, 2)), abs(np.diff(images)).mean(axis=(1, 2))
    scores = np.sort(brightness**2 + roughness**2).astype(np.float32)
    listed = ", ".join(f"{score:.9g}" if "." in f"{score:.9g}" else f"{score:.9g}.0" for score in scores)
    text = GRAPH.format(calibration=f"{{{listed}}}", mean=mean, places=float(len(scores) + 1))
    model = onnx.parser.parse_model(text.replace("float[M]", f"float[{len(scores)}]"))
    onnx.checker.check_model(model)
    onnx.save(model, directory / "score.onnx")
    parity = Parity(batch_sizes=(1,), max_abs_diff=0, bound=0)
    manifest = Manifest(
        name="digits-scorer",
        task="anomaly",
        network="by hand",
        recipe="none",
        seed=0,
        dataset=Data(name=dataset.name, digest=dataset.digest, splits=dataset.splits),
        image=Image(channels=1, height=28, width=28),
        class_names=dataset.class_names,
        constants={"calibration_size": len(scores), "smallest_p_value": 1 / (len(scores) + 1), "residual_q99": 100.0},
        graphs={"score": Graph(file="score.onnx", opset=20, inputs=(), outputs=(), parity=parity)},
        metrics={},
        versions={},
        files={"score.onnx": file_record(directory / "score.onnx")},
        digest="0" * 64,
    )
    return Bundle(directory, manifest)
