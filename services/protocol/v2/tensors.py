"""V2 tensors as arrays: fixed-size datatypes as little-endian bytes or JSON numbers, BYTES with length prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from services.errors import InvalidInput, MalformedRequest
from services.protocol.images import plain_bytes

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "BYTES": np.dtype("O"),
}
TYPES: dict[str, frozenset[type]] = {  # of JSON values, by NumPy's kind of dtype
    "b": frozenset({bool}),
    "u": frozenset({int}),
    "i": frozenset({int}),
    "f": frozenset({int, float}),
}
SLICE = 2**15  # values that are converted at once: about 1 ms
TEXT_SLICE = 2**14  # bytes of a list that are parsed at once: so few numbers stay in the processor's caches
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype(array: np.ndarray) -> str:
    return NAMES[array.dtype]


def from_binary(raw: memoryview, kind: str, shape: tuple[int, ...], field: str) -> np.ndarray:
    """An array over the bytes of a binary tensor, without a copy where the datatype has a fixed size.

    Raises:
        MalformedRequest: the bytes are not of that datatype and shape.
    """
    if kind == "BYTES":
        return _objects(_split(raw, math.prod(shape), field), shape, field)
    dtype = DTYPES[kind]
    count = math.prod(shape)
    if raw.nbytes != count * dtype.itemsize:
        raise MalformedRequest(
            f"{field} has {raw.nbytes} bytes, but {kind} of shape {list(shape)} needs {count * dtype.itemsize}",
            field=field,
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def from_json(data: object, kind: str, shape: tuple[int, ...], field: str, *, booleans: bool = True) -> np.ndarray:
    """An array from JSON `data`, flat or nested, in row-major order.

    Args:
        data: the parsed JSON.
        kind: the datatype.
        shape: of the tensor.
        field: for messages.
        booleans: False where the JSON is known to hold none.

    Raises:
        MalformedRequest: the number of values does not fit the shape.
        InvalidInput: a value is not of the datatype.
    """
    if type(data) is not list:
        raise MalformedRequest(f"{field}.data is not a list; send a JSON list", field=f"{field}.data")
    flat = _flatten(data, field)
    if kind == "BYTES":
        return _objects([_encoded(value, field) for value in flat[: math.prod(shape) + 1]], shape, field)
    if len(flat) != math.prod(shape):
        raise MalformedRequest(
            f"{field}.data has {len(flat)} values, but shape {list(shape)} needs {math.prod(shape)}", field=field
        )
    if kind == "UINT8" and (plain := _plain(flat, booleans)) is not None:
        return np.frombuffer(plain, np.uint8).reshape(shape)
    dtype = DTYPES[kind]
    array = np.empty(len(flat), dtype)
    try:
        with np.errstate(over="raise"):
            for start in range(0, len(flat), SLICE):  # in slices, because each holds Python's global lock
                values = flat[start : start + SLICE]
                # Check types first: NumPy would convert true to 1 and "1" to a number.
                if not TYPES[dtype.kind].issuperset(map(type, values)):
                    raise InvalidInput(f"{field}.data holds values that are not {kind}", field=field)
                array[start : start + SLICE] = np.array(values, dtype)
        while len(flat) > SLICE:  # freed in slices too
            del flat[-SLICE:]
        return array.reshape(shape)
    except (OverflowError, FloatingPointError):
        raise InvalidInput(f"{field}.data holds numbers too large for {kind}", field=field) from None


def _plain(flat: list[Any], booleans: bool) -> bytes | None:
    """Integers 0 to 255 as bytes; None for other values."""
    if len(flat) <= SLICE:
        return plain_bytes([flat], booleans=booleans)
    parts = []
    for start in range(0, len(flat), SLICE):
        part = plain_bytes([flat[start : start + SLICE]], booleans=booleans)
        if part is None:
            return None
        parts.append(part)
    return b"".join(parts)


def plain_list(text: bytes) -> bytes | None:
    """A JSON list of integers 0 to 255 as bytes; None for any other text, also for a wrong one.

    Long lists are parsed in slices, which takes two thirds of the time. A cut is always between two members, because
    lists of integers hold no other commas.
    """
    if b"e" in text or b'"' in text:  # a boolean, or a string
        return None
    parts: list[bytes] = []
    start, stop = 1, len(text) - 1
    try:
        while start < stop or not parts:
            cut = stop if stop - start <= TEXT_SLICE else text.rindex(b",", start, start + TEXT_SLICE)
            part = bytes(orjson.loads(b"[%b]" % text[start:cut]))
            if not part:
                return None  # an empty list, or nothing between two commas
            parts.append(part)
            start = cut + 1
    except (TypeError, ValueError):  # not JSON, or other values
        return None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def to_binary(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":
        return b"".join(len(value).to_bytes(4, "little") + value for value in array.flat)
    return array.tobytes()


def to_json(array: np.ndarray) -> list[Any]:
    """Flat JSON data in row-major order; bytes become text (UTF-8)."""
    if array.dtype.kind == "O":
        return [value.decode("utf-8", "replace") for value in array.flat]
    return array.ravel().tolist()


def strings(values: Sequence[bytes]) -> np.ndarray:
    """A BYTES array [N]."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _objects(values: list[bytes], shape: tuple[int, ...], field: str) -> np.ndarray:
    if len(values) != math.prod(shape):
        raise MalformedRequest(
            f"{field} has {len(values)} elements, but shape {list(shape)} needs {math.prod(shape)}", field=field
        )
    return strings(values).reshape(shape)


def _split(raw: memoryview, count: int, field: str) -> list[bytes]:
    """The elements of a BYTES tensor; one more than `count`, if there are more."""
    values: list[bytes] = []
    at = 0
    while at < raw.nbytes and len(values) <= count:
        size = int.from_bytes(raw[at : at + 4], "little")
        start = at + 4
        at = start + size
        if start > raw.nbytes or at > raw.nbytes:
            raise MalformedRequest(
                f"{field}: element {len(values)} of BYTES ends after the end of the tensor", field=field
            )
        values.append(bytes(raw[start:at]))
    return values


def _encoded(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f"{field}.data holds values that are not strings; send BYTES as strings", field=field)
    return value.encode("utf-8", "surrogatepass")


def _flatten(data: list[Any], field: str) -> list[Any]:
    """The values of a nested list in row-major order.

    Raises:
        InvalidInput: the rows differ in length or depth.
    """
    flat = data
    while flat and type(flat[0]) is list:
        width, rows = len(flat[0]), flat
        step = max(1, SLICE // max(1, width))
        flat = []
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            if set(map(type, some)) != {list} or set(map(len, some)) != {width}:
                raise InvalidInput(f"{field}.data is ragged: its rows differ in length", field=field)
            flat.extend(chain.from_iterable(some))
    return flat
