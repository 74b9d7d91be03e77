"""V2 inference requests and answers as bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from services.errors import InvalidInput, MalformedRequest, TooLarge
from services.protocol import json_slices
from services.protocol.v2.tensors import DTYPES, datatype, from_binary, from_json, to_binary, to_json
from services.tasks.limits import check_count

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON = b"application/json"
BINARY = b"application/octet-stream"
TENSORS = 64  # inputs or outputs of a request; no model has so many


@dataclass(slots=True)
class Output:
    """One requested output."""

    name: str
    binary: bool
    classification: int = 0


@dataclass(slots=True)
class Given:
    """An input as it came, before its data are touched.

    Attributes:
        field: its name in messages.
        datatype: one of `DTYPES`.
        shape: as declared.
        data: parsed JSON, or the bytes of a binary tensor.
        booleans: whether the JSON may hold true or false.
    """

    field: str
    datatype: str
    shape: tuple[int, ...]
    data: object
    booleans: bool = True

    def array(self) -> np.ndarray:
        """Raises: MalformedRequest, InvalidInput: see `from_binary` and `from_json`."""
        if isinstance(self.data, memoryview):
            return from_binary(self.data, self.datatype, self.shape, self.field)
        return from_json(self.data, self.datatype, self.shape, self.field, booleans=self.booleans)


@dataclass(slots=True)
class InferRequest:
    """An inference request; `read` makes the arrays `inputs` of what is `given`.

    Attributes:
        size: the number of values that are declared and have to be converted one by one.
    """

    given: dict[str, Given]
    outputs: list[Output] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    binary_output: bool = False
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    size: int = 0

    @property
    def rows(self) -> int:
        """The number of images that are given; 1 without images."""
        images = self.inputs.get("images")
        return images.shape[0] if images is not None and images.ndim else 1

    def check_counts(self, most: int, item_values: int) -> None:
        """Refuse inputs of too many items before their data are touched.

        Args:
            most: items in one request.
            item_values: values in the largest item.

        Raises:
            TooLarge: naming the input.
        """
        for given in self.given.values():
            check_count(given.shape[0] if given.shape else 1, given.field, most)
            if math.prod(given.shape) > most * item_values:
                values = f"{math.prod(given.shape)} values; at most {most * item_values}"
                raise TooLarge(f"{given.field} declares {values} are allowed", field=given.field)

    def read(self) -> None:
        """Make the arrays.

        Raises:
            MalformedRequest, InvalidInput: data that do not fit the datatype and the shape.
        """
        for name, given in self.given.items():
            self.inputs[name] = given.array()


def json_size(body: bytes | bytearray, header_length: str | None) -> int:
    """The number of bytes of JSON at the beginning of a body.

    Args:
        body: the whole body, decompressed.
        header_length: the `Inference-Header-Content-Length` header; None: all of the body is JSON. The media type is
            not used: Triton's clients send none, or octet-stream for JSON.

    Raises:
        MalformedRequest: the header is no number, or larger than the body.
    """
    if header_length is None:
        return len(body)
    if header_length.isdecimal() and len(header_length) < 12 and int(header_length) <= len(body):
        return int(header_length)
    raise MalformedRequest(
        f"{HEADER_LENGTH} is {header_length[:40]!r}, but the body has {len(body)} bytes", field=HEADER_LENGTH
    )


def parse(body: bytes | bytearray, size: int, document: Any = None) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body, decompressed.
        size: of its JSON, see `json_size`.
        document: the value of its JSON, if that has been parsed already.

    Raises:
        MalformedRequest: not JSON, or not a request.
        InvalidInput: a tensor of an unknown datatype, or values that do not fit it.
    """
    raw = memoryview(body)
    if document is not None:
        head, inputs = _members(document)
    else:
        head, inputs = _head(raw[:size])
    head.given, head.size = _given(inputs, raw, size)
    return head


def _head(text: memoryview) -> tuple[InferRequest, object]:
    """The JSON of a request: everything except its inputs, checked, and its inputs, unchecked."""
    try:
        return _members(json_slices.loads(text))
    except json_slices.NotJSON as error:
        raise MalformedRequest(f"the body is not JSON: {error}", field="body") from None


def _members(request: Any) -> tuple[InferRequest, object]:
    if type(request) is not dict:
        raise MalformedRequest("the body is JSON, but not an object; send a JSON object", field="body")
    parameters = _mapping(request.get("parameters"), "parameters")
    binary_output = _boolean(parameters.pop("binary_data_output", False), "parameters.binary_data_output")
    identity = request.get("id")
    if identity is not None and type(identity) is not str:
        raise MalformedRequest(f"id is {short(identity)}; send a string", field="id")
    specs = _list(request.get("outputs"), "outputs")
    inputs = request.get("inputs")
    if type(inputs) is list:
        check_count(len(inputs), "inputs", TENSORS)
    outputs: dict[str, Output] = {}
    for i, spec in enumerate(specs):
        output = _output(spec, f"outputs[{i}]", binary_output)
        if output.name in outputs:  # a short list of names must not multiply a large answer
            message = f"outputs[{i}]: {output.name[:60]} is named twice; name it once"
            raise InvalidInput(message, field=f"outputs[{i}].name")
        outputs[output.name] = output
        check_count(len(outputs), "outputs", TENSORS)
    return InferRequest({}, list(outputs.values()), parameters, identity, binary_output), inputs


def _given(specs: object, raw: memoryview, at: int) -> tuple[dict[str, Given], int]:
    """The inputs, and the number of values in them that have to be converted one by one."""
    inputs: dict[str, Given] = {}
    values = 0
    for i, spec in enumerate(_list(specs, "inputs")):
        name = spec.get("name") if type(spec) is dict else None
        if type(name) is not str:
            raise MalformedRequest(f"inputs[{i}] has no name; send a string", field=f"inputs[{i}].name")
        where = f"inputs[{i}]" if len(name) > 60 else f"inputs.{name}"
        if name in inputs:
            raise MalformedRequest(f"{where} is given twice; send it once", field=where)
        kind = spec.get("datatype")
        if type(kind) is not str or kind not in DTYPES:
            raise InvalidInput(
                f"{where}: datatype {short(kind)} is not one of {', '.join(DTYPES)}", field=f"{where}.datatype"
            )
        shape = _shape(spec.get("shape"), where)
        if "data" in spec:
            text: bytes | bytearray = raw.obj  # type: ignore[assignment]  # a search in the text costs less than a check of every value
            booleans = b"true" in text or b"false" in text
            inputs[name] = Given(where, kind, shape, spec["data"], booleans)
            values += math.prod(shape)
            continue
        size = _mapping(spec.get("parameters"), where).get("binary_data_size")
        if type(size) is not int or size < 0:
            raise MalformedRequest(f"{where} has neither data nor binary_data_size; send one", field=f"{where}.data")
        if at + size > raw.nbytes:
            message = f"{where}: binary_data_size is {size}, but only {raw.nbytes - at} bytes of the body are left"
            raise MalformedRequest(message, field=where)
        inputs[name] = Given(where, kind, shape, raw[at : at + size])
        if kind == "BYTES":
            values += math.prod(shape)
        at += size
    if at != raw.nbytes:
        raise MalformedRequest(f"{raw.nbytes - at} bytes follow the last binary tensor", field="body")
    return inputs, values


def _shape(shape: object, where: str) -> tuple[int, ...]:
    if type(shape) is list and len(shape) <= 8:
        for size in shape:
            if type(size) is not int or not 0 < size < 2**31:
                break
        else:
            return tuple(shape)
    raise MalformedRequest(f"{where}.shape is not a list of at most 8 sizes above 0", field=f"{where}.shape")


def _output(spec: object, where: str, binary_default: bool) -> Output:
    if type(spec) is not dict or type(spec.get("name")) is not str:
        raise MalformedRequest(f"{where} has no name; send a string", field=f"{where}.name")
    parameters = _mapping(spec.get("parameters"), where)
    top = parameters.get("classification", 0)
    if type(top) is not int or top < 0:
        raise InvalidInput(f"{where}: classification is {short(top)}; send a number of classes", field=where)
    for name in parameters:
        if name not in ("binary_data", "classification"):
            message = f"{where}: parameter {name[:40]!r} is not one of binary_data, classification"
            raise InvalidInput(message, field=f"{where}.parameters")
    binary = _boolean(parameters.get("binary_data", binary_default), f"{where}.parameters.binary_data")
    return Output(spec["name"], binary, top)


def _boolean(value: object, where: str) -> bool:
    if type(value) is not bool:
        raise InvalidInput(f"{where} is {short(value)}; send true or false", field=where)
    return value


def short(value: object) -> str:
    """A JSON value as text, cut to 40 characters."""
    return orjson.dumps(value).decode()[:40]


def _mapping(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise MalformedRequest(f"{where} is not an object; send a JSON object", field=where)
    return value


def _list(value: object, where: str) -> list[Any]:
    if value is None:
        return []
    if type(value) is not list:
        raise MalformedRequest(f"{where} is not a list; send a JSON list", field=where)
    return value


def render(answer: Mapping[str, Any], outputs: list[tuple[str, np.ndarray, bool]]) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        answer: the members other than `outputs`: model_name, model_version, id, parameters.
        outputs: name, array, and whether it is sent as binary.

    Returns:
        The body, and the length of its JSON part if binary tensors follow it.
    """
    specs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, array, binary in outputs:
        spec: dict[str, Any] = {"name": name, "datatype": datatype(array), "shape": array.shape}
        if binary:
            raw = to_binary(array)
            spec["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            spec["data"] = to_json(array)
        specs.append(spec)
    head = orjson.dumps({**answer, "outputs": specs})
    return (b"".join((head, *tail)), len(head)) if tail else (head, None)
