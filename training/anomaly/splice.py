"""ONNX graphs joined into one: the outputs of some are the inputs of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import helper
from onnx.utils import Extractor

from training.parity import ExportError


@dataclass(frozen=True)
class Piece:
    """A graph to be joined with others.

    Args:
        name: put before the names inside it, so that no two graphs share one.
        model: the graph; it must not hold graphs inside its nodes.
        names: what its inputs and outputs are called in the whole, by their own names; the others stay inside.
    """

    name: str
    model: onnx.ModelProto
    names: Mapping[str, str] = field(default_factory=dict)


def splice(pieces: Sequence[Piece], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]) -> onnx.ModelProto:
    """One model of all `pieces`, each after those whose outputs it takes, without what no output needs.

    Args:
        pieces: in the order of computation.
        inputs: of the whole.
        outputs: names of the whole's tensors that come out.

    Raises:
        ExportError: two pieces have other operator sets, or an output is not made by any.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    values: dict[str, onnx.ValueInfoProto] = {}
    versions: dict[str, int] = {}
    for piece in pieces:
        for entry in piece.model.opset_import:
            if versions.setdefault(entry.domain, entry.version) != entry.version:
                raise ExportError(
                    f"{piece.name}: operator set {entry.version}, but the graphs before it have "
                    f"{versions[entry.domain]}; export them again with one release of Duet"
                )
        graph = piece.model.graph

        def called(name: str, piece: Piece = piece) -> str:
            return piece.names.get(name, f"{piece.name}/{name}") if name else ""  # "": an input left out

        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{piece.name}/{node.name}" if node.name else ""
            copy.input[:] = [called(name) for name in node.input]
            copy.output[:] = [called(name) for name in node.output]
            nodes.append(copy)
        for tensor in graph.initializer:
            renamed = onnx.TensorProto()
            renamed.CopyFrom(tensor)
            renamed.name = called(tensor.name)
            constants.append(renamed)
        for value in (*graph.output, *graph.value_info):
            known = onnx.ValueInfoProto()
            known.CopyFrom(value)
            known.name = called(value.name)
            values[known.name] = known
    made = {name for node in nodes for name in node.output}
    for name in outputs:
        if name not in made:
            raise ExportError(f"{name}: no graph makes it; there is {', '.join(sorted(values))}")
    declared = [values.get(name) or onnx.ValueInfoProto(name=name) for name in outputs]
    whole = helper.make_model(
        helper.make_graph(nodes, "score", list(inputs), declared, constants),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in versions.items()],
        ir_version=max(piece.model.ir_version for piece in pieces),
    )
    return Extractor(onnx.shape_inference.infer_shapes(whole)).extract_model([i.name for i in inputs], list(outputs))


def before_dense(graph: onnx.GraphProto, output: str) -> str | None:
    """The tensor that the last dense layer before `output` takes; None where there is no such layer."""
    for node in _back_from(graph, output):
        if node.op_type in ("Gemm", "MatMul"):
            return str(node.input[0])
    return None


def before_pool(graph: onnx.GraphProto) -> str | None:
    """The maps that the first pooling takes; None where nothing is pooled."""
    return next((str(node.input[0]) for node in graph.node if node.op_type == "MaxPool"), None)


def _back_from(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """The nodes that make a tensor, from the last one back along first inputs."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers:
        yield makers[name]
        name = makers[name].input[0] if makers[name].input else ""
