"""Graphs that are joined compute what they compute apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from training.data.arrays import philox
from training.graphs.session import ExportError, open_graph, run
from training.graphs.splice import Piece, before_dense, before_pool, splice

DOUBLE = """<ir_version: 9, opset_import: ["": 20]>
double (float[N,3] x) => (float[N,3] y, float[N,3] spare) <float[1] weight = {2.0}> {
    inner = Mul (x, weight)
    y = Identity (inner)
    spare = Neg (inner)
}"""
SHIFT = """<ir_version: 10, opset_import: ["": 20]>
shift (float[N,3] x) => (float[N,3] y) <float[1] weight = {10.0}> {
    inner = Add (x, weight)
    y = Relu (inner)
}"""


def parse(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def inputs() -> list[onnx.ValueInfoProto]:
    return [onnx.helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, ["N", 3])]


def pieces() -> list[Piece]:
    """Both have an input `x`, an output `y`, an inner tensor `inner` and a constant `weight`."""
    return [
        Piece("first", parse(DOUBLE), {"x": "given", "y": "between"}),
        Piece("second", parse(SHIFT), {"x": "between", "y": "result"}),
    ]


def test_joined_graphs_compute_what_they_compute_apart() -> None:
    joined = splice(pieces(), inputs(), ["between", "result"])
    onnx.checker.check_model(joined, full_check=True)
    given = 20 * philox(0).standard_normal((7, 3), dtype=np.float32)
    outputs = run(open_graph(joined.SerializeToString()), {"given": given})
    first = run(open_graph(parse(DOUBLE).SerializeToString()), {"x": given})["y"]
    second = run(open_graph(parse(SHIFT).SerializeToString()), {"x": first})["y"]
    assert list(outputs) == ["between", "result"]
    assert np.array_equal(outputs["between"], first)
    assert np.array_equal(outputs["result"], second)
    assert not np.array_equal(first, second)


def test_names_never_clash_and_what_no_output_needs_is_left_out() -> None:
    joined = splice(pieces(), inputs(), ["result"])
    constants = [tensor.name for tensor in joined.graph.initializer]
    made = [name for node in joined.graph.node for name in node.output]
    assert sorted(constants) == ["first/weight", "second/weight"]
    assert sorted(made) == ["between", "first/inner", "result", "second/inner"]
    assert joined.ir_version == 10, "the newer of the two"


def test_other_operator_sets_are_refused() -> None:
    older = Piece("older", parse(SHIFT.replace('"": 20', '"": 18')), {"x": "between", "y": "result"})
    with pytest.raises(ExportError, match=r"older has operator set 18, but the graphs before it have 20; export them"):
        splice([pieces()[0], older], inputs(), ["result"])


def test_an_output_that_nothing_makes_is_named() -> None:
    with pytest.raises(ExportError, match=r"score: no graph computes this output; there are .*between.*result"):
        splice(pieces(), inputs(), ["result", "score"])


GEMM = """<ir_version: 9, opset_import: ["": 20]>
g (float[N,2,8,8] x, float[3,32] w, float[3] b) => (float[N,3] logits, float[N,3] probabilities) {
    pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
    again = MaxPool <kernel_shape = [1, 1]> (pooled)
    flat = Flatten (again)
    dense = Gemm <transB = 1> (flat, w, b)
    logits = Identity (dense)
    probabilities = Softmax (logits)
}"""
MATMUL = """<ir_version: 9, opset_import: ["": 20]>
g (float[N,4] x, float[4,5] v, float[5,3] w, float[3] b) => (float[N,3] logits) {
    hidden = MatMul (x, v)
    active = Relu (hidden)
    product = MatMul (active, w)
    logits = Add (product, b)
}"""


def test_what_the_last_dense_layer_takes() -> None:
    assert before_dense(parse(GEMM).graph, "logits") == "flat"
    assert before_dense(parse(MATMUL).graph, "logits") == "active", "not the first dense layer"
    assert before_dense(parse(DOUBLE).graph, "y") is None
    assert before_dense(parse(GEMM).graph, "flat") is None, "no dense layer comes before it"


def test_what_the_first_pooling_takes() -> None:
    assert before_pool(parse(GEMM).graph) == "x"
    assert before_pool(parse(MATMUL).graph) is None


def test_a_joined_graph_can_be_saved(tmp_path: Path) -> None:
    onnx.save(splice(pieces(), inputs(), ["result"]), path := tmp_path / "joined.onnx")
    given = np.array([[-6, 0, 1]], np.float32)
    assert run(open_graph(path), {"given": given})["result"].tolist() == [[0, 10, 12]]
