"""Joins ONNX graphs into one: outputs of some graphs are inputs of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import helper
from onnx.utils import Extractor

from training.graphs.session import ExportError


@dataclass(frozen=True)
class Piece:
    """A graph to be joined with others.

    Args:
        name: prefix of its inner names, so that no two graphs share a name.
        model: the graph; its nodes must not contain graphs.
        names: names in the joined graph by its own names, for inputs and outputs; other tensors stay inner.
    """

    name: str
    model: onnx.ModelProto
    names: Mapping[str, str] = field(default_factory=dict)


def splice(pieces: Sequence[Piece], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]) -> onnx.ModelProto:
    """One model of all `pieces`, without nodes that no output needs.

    Args:
        pieces: in the order of computation: each piece after those whose outputs it needs.
        inputs: inputs of the joined graph.
        outputs: names of its outputs.

    Raises:
        ExportError: two pieces have different operator sets, or no piece computes an output.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    values: dict[str, onnx.ValueInfoProto] = {}
    versions: dict[str, int] = {}
    for piece in pieces:
        for entry in piece.model.opset_import:
            if versions.setdefault(entry.domain, entry.version) != entry.version:
                raise ExportError(
                    f"{piece.name} has operator set {entry.version}, but the graphs before it have "
                    f"{versions[entry.domain]}; export them again with one release of Duet"
                )
        graph = piece.model.graph

        def called(name: str, piece: Piece = piece) -> str:
            return (
                piece.names.get(name, f"{piece.name}/{name}") if name else ""
            )  # "": an optional input without a value

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
            raise ExportError(f"{name}: no graph computes this output; there are {', '.join(sorted(values))}")
    declared = [values.get(name) or onnx.ValueInfoProto(name=name) for name in outputs]
    whole = helper.make_model(
        helper.make_graph(nodes, "score", list(inputs), declared, constants),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in versions.items()],
        ir_version=max(piece.model.ir_version for piece in pieces),
    )
    return Extractor(onnx.shape_inference.infer_shapes(whole)).extract_model([i.name for i in inputs], list(outputs))


def before_dense(graph: onnx.GraphProto, output: str) -> str | None:
    """The input of the last dense layer before `output`; None if there is no such layer."""
    for node in _back_from(graph, output):
        if node.op_type in ("Gemm", "MatMul"):
            return str(node.input[0])
    return None


def before_pool(graph: onnx.GraphProto) -> str | None:
    """The input of the first pooling layer; None if there is none."""
    return next((str(node.input[0]) for node in graph.node if node.op_type == "MaxPool"), None)


def _back_from(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """The nodes that compute a tensor, from the last node back along first inputs."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers:
        yield makers[name]
        name = makers[name].input[0] if makers[name].input else ""
