"""The outputs that a V2 request asks for, and their answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.errors import InvalidInput
from services.inference.classifier import JOINT
from services.inference.model import Model
from services.protocol.compression import compress
from services.protocol.exchange import Headers
from services.protocol.raw_response import RawResponse
from services.protocol.v2.inference import BINARY, JSON, InferRequest, Output, render
from services.protocol.v2.plans import Plan, Plans
from services.protocol.v2.signatures import Signature
from services.protocol.v2.tensors import strings
from services.served import Arrays, Served

# Triton's asyncio client announces encodings that it cannot decode, so only a single encoding counts.
COMPRESSIONS = (b"gzip", b"deflate")
COMPRESS_FROM = 1024  # bytes; below, a compressed answer is hardly smaller
# What clients of other servers add by themselves; it changes nothing here.
OF_CLIENTS = ("priority", "timeout", "sequence_", "triton_", "content_type", "headers", "correlation_id")


@dataclass(frozen=True)
class Endpoint:
    """A model under one of its V2 paths."""

    served: Served[Model]
    signature: Signature
    plans: Plans = field(default_factory=Plans)


def chosen_outputs(signature: Signature, request: InferRequest) -> list[Output]:
    """The requested outputs, or the default outputs.

    Raises:
        InvalidInput: there is no such output, or no such input.
    """
    known = signature.input_names
    for name in request.given:
        if name not in known:
            raise InvalidInput(f"input {name[:60]!r} is not one of {', '.join(sorted(known))}", field="inputs")
    for name in request.parameters:
        if name not in signature.parameters and not name.startswith(OF_CLIENTS):
            known_names = ", ".join(signature.parameters)
            message = f"parameter {name[:60]!r} is not one of this model's: {known_names}"
            raise InvalidInput(message, field=f"parameters.{name[:60]}")
    if not request.outputs:
        return [Output(name, request.binary_output) for name in signature.default_outputs]
    names = signature.output_names
    for i, output in enumerate(request.outputs):
        if output.name not in names:
            message = f"outputs[{i}] is {output.name[:60]!r}; this model has {', '.join(names)}"
            if output.name == JOINT and signature.class_names:
                message = f"outputs[{i}] is log_joint, but this model is discriminative and knows p(y|x) only"
            raise InvalidInput(message, field=f"outputs[{i}].name")
        if output.classification and not (signature.class_names and output.name in ("probabilities", "logits")):
            message = f"outputs[{i}]: {output.name} cannot be ranked by class; leave classification out"
            raise InvalidInput(message, field=f"outputs[{i}].parameters.classification")
    return request.outputs


def _classified(array: np.ndarray, output: Output, signature: Signature) -> np.ndarray:
    """The classification extension: BYTES [N,k] of `value:index:label`, best first."""
    if not output.classification:
        return array
    top = min(output.classification, len(signature.class_names))
    rows = []
    for row in array:
        order = np.argsort(-row, kind="stable")[:top]
        rows += [f"{row[i]:f}:{i}:{signature.class_names[i]}".encode() for i in order]
    return strings(rows).reshape(len(array), top)


def encoded(
    endpoint: Endpoint,
    request: InferRequest,
    outputs: Sequence[Output],
    arrays: Arrays,
    headers: Headers,
    plan: Plan | None,
) -> RawResponse:
    """The outputs as an answer, compressed if the client asks for it."""
    known = plan.answer(arrays) if plan is not None else None
    payload: bytes
    json_length: int | None
    if known is not None:
        payload, json_length = known
    else:
        entry = endpoint.served.entry
        about: dict[str, Any] = {"model_name": entry.name, "model_version": entry.version}
        if request.id is not None:
            about["id"] = request.id
        about["parameters"] = {"digest": endpoint.served.model.bundle.digest}
        tensors = [(o.name, _classified(arrays[o.name], o, endpoint.signature), o.binary) for o in outputs]
        payload, json_length = render(about, tensors)
        if plan is not None:
            plan.keep(arrays, payload[:json_length])
    answered = [(b"content-type", JSON if json_length is None else BINARY)]
    if json_length is not None:
        answered.append((b"inference-header-content-length", b"%d" % json_length))
    encoding = headers.get(b"accept-encoding", b"")
    if encoding in COMPRESSIONS and len(payload) >= COMPRESS_FROM:
        payload = compress(payload, encoding.decode())
        answered.append((b"content-encoding", encoding))
    return RawResponse(200, answered, payload)
