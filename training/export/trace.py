"""From PyTorch to ONNX: wraps networks into a bundle's graphs, exports and checks them, and compares them with PyTorch.

The graphs take uint8 pixels; normalisation, softmax and rounding to uint8 are part of the graph, so serving needs no
further arithmetic. See `services.inference.bundle` for the signatures, and `training.scorer.export` for the scorer.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.inference import bundle
from training.data.arrays import Array, evenly_spaced
from training.export.parity import BATCH_SIZES, as_shipped, measure_parity
from training.export.sklearn import convert
from training.export.wrappers import Classify, Graph
from training.graphs.session import ExportError
from training.networks.conditional_vae import ConditionalVAE
from training.networks.estimator import Scores

OPSET = 20
UNKNOWN = 0.123456789  # stands for a threshold that is filled in later; no other constant has this value


def likelihood_constants(vae: ConditionalVAE) -> dict[str, float]:
    """What tells the likelihood of a pixel in a manifest: `binarised`, a scale for each channel, or nothing."""
    if vae.likelihood == "logistic":
        return {f"log_scale/{channel}": scale for channel, scale in enumerate(vae.log_scale.flatten().tolist())}
    return {"binarised": 1.0} if vae.likelihood == "bernoulli" else {}


def export_graph(graph: Graph, feeds: Mapping[str, Array], path: Path) -> bundle.Graph:
    """Export one of this module's graphs to `path` and compare it with PyTorch on `feeds` (64 rows each).

    Raises:
        ExportError: ONNX finds the file invalid, or an output differs from PyTorch by more than its bound.
    """
    return save(_model(graph, feeds, path.name), path, as_shipped(graph), feeds)


def _model(graph: Graph, feeds: Mapping[str, Array], name: str) -> onnx.ModelProto:
    graph = as_shipped(graph)
    if isinstance(graph, Classify) and isinstance(graph.cnn, Scores):
        return convert(graph)
    return trace(graph, feeds, name)


def _fill(model: onnx.ModelProto, threshold: float, name: str) -> None:
    """Put a threshold in the place of `UNKNOWN`.

    Raises:
        ExportError: the exporter did not keep it as one constant.
    """
    unknown = onnx.numpy_helper.from_array(np.array(UNKNOWN, np.float32)).raw_data
    found = [tensor for tensor in model.graph.initializer if onnx.numpy_helper.to_array(tensor).tobytes() == unknown]
    if len(found) != 1:
        raise ExportError(f"{name}: {len(found)} constants of the exported graph hold the threshold, not one")
    value = np.full(tuple(found[0].dims), threshold, np.float32)
    found[0].CopyFrom(onnx.numpy_helper.from_array(value, found[0].name))


def save(
    model: onnx.ModelProto,
    path: Path,
    graph: Callable[..., tuple[Tensor, ...]],
    feeds: Mapping[str, Array],
    recompute_steps: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
) -> bundle.Graph:
    """Write a model to `path`, always with the same bytes, and compare it with `graph` on `feeds` (64 rows each).

    `recompute_steps`: see `measure_parity`.

    Raises:
        ExportError: ONNX finds the file invalid, or an output differs from PyTorch by more than its bound.
    """
    _anonymise(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name}: not valid ONNX ({error})") from error
    path.write_bytes(model.SerializeToString(deterministic=True))
    return bundle.Graph(
        file=path.name,
        opset=next(entry.version for entry in model.opset_import if entry.domain == ""),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        parity=measure_parity(graph, path, feeds, recompute_steps),
    )


def trace(graph: nn.Module, feeds: Mapping[str, Array], name: str) -> onnx.ModelProto:
    """The ONNX model of a PyTorch graph; the first axis of every input and output is dynamic.

    Args:
        graph: its `outputs` are the names of its results.
        feeds: arguments by name, two rows or more.
        name: of the file, for messages.
    """
    example = {name: torch.from_numpy(array[:2]) for name, array in feeds.items()}  # 0 and 1 would be constants
    batch = torch.export.Dim("N")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            kwargs=example,
            input_names=list(feeds),
            output_names=list(cast(Sequence[str], graph.outputs)),
            opset_version=OPSET,
            dynamic_shapes={name: {0: batch} for name in feeds},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{name}: the exporter returned no program")
    return program.model_proto


def _tensor(value: onnx.ValueInfoProto) -> bundle.Tensor:
    kind = value.type.tensor_type
    return bundle.Tensor.model_validate(
        {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            "shape": tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim),
        }
    )


def _anonymise(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they contain paths of the machine, and the digest must not depend on them."""
    graph = model.graph
    messages: Sequence[Any] = (
        model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer
    )  # fmt: skip
    for message in messages:
        message.ClearField("metadata_props")
        message.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of torch's exporter about its own deprecations and about libraries that Duet does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def some_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As many images as the largest batch of the parity check, spread over all."""
    return np.resize(images[evenly_spaced(len(images), max(BATCH_SIZES))], (max(BATCH_SIZES), *images.shape[1:]))
