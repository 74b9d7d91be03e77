"""Cached values: the arrays of one item, as bytes that check themselves. Never pickle.

Layout: magic (4 bytes), CRC-32 of the rest (4, little-endian), header length (4), header (JSON: name, dtype, shape of
each array), then the arrays' bytes in C order.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping

import numpy as np
import orjson

MAGIC = b"DUE1"
DTYPES = {"|u1", "<i8", "<f4"}


class CorruptValue(ValueError):
    """A cached value is truncated, damaged or of another schema."""


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    header = json.dumps([[name, a.dtype.str, a.shape] for name, a in arrays.items()]).encode()
    body = (
        len(header).to_bytes(4, "little")
        + header
        + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    )
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def decode(value: bytes) -> dict[str, np.ndarray]:
    """The arrays of one item.

    Raises:
        CorruptValue: the value was not written by `encode`, or not wholly.
    """
    body = memoryview(value)[8:]
    if value[:4] != MAGIC or zlib.crc32(body).to_bytes(4, "little") != value[4:8]:
        raise CorruptValue("magic or checksum does not match")
    try:
        return _arrays(body)
    except Exception as error:  # the checksum held, so `encode` did not write it; JSON and numpy raise many types
        raise CorruptValue(f"not a value: {error}") from None


def _arrays(body: memoryview) -> dict[str, np.ndarray]:
    start = 4 + int.from_bytes(body[:4], "little")
    arrays = {}
    for name, dtype, shape in orjson.loads(body[4:start]):
        if dtype not in DTYPES or min(shape, default=0) < 0:
            raise CorruptValue(f"{name}: dtype {dtype}, shape {shape}")
        arrays[name] = np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape)
        start += arrays[name].nbytes
    return arrays
