from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from training.data.arrays import evenly_spaced
from training.graphs.session import open_graph, run


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """y = x + x and z = x * x."""
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xyz")
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Mul", ["x", "x"], ["z"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y, z]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    path = tmp_path / "g.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_chunks_are_put_together_in_order(doubling: Path, size: int) -> None:
    x = np.arange(2 * size, dtype=np.float32).reshape(size, 2)
    outputs = run(open_graph(doubling), {"x": x}, chunk=4)
    assert np.array_equal(outputs["y"], 2 * x)
    assert np.array_equal(outputs["z"], x * x)


def test_spread_covers_all_rows() -> None:
    assert evenly_spaced(5, 100).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(9, 3).tolist() == [0, 4, 8]
    assert len(set(evenly_spaced(10_000, 2000).tolist())) == 2000
