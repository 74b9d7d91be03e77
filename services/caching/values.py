"""Cached values: the outputs of one item as bytes with a checksum. Never pickle.

Layout: magic (4 bytes, the schema), CRC-32 (4, little-endian), time of computing (4, seconds since 1970), then the
item's row of every output in C order, in the order of their names. Dtypes and shapes are not in the value: the reader
knows the operation. The checksum covers dtypes and shapes too, so a value of other outputs fails the check.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.caching.rows import item_rows

MAGIC = b"DUE2"
HEAD = struct.Struct("<4sII")
HEADER = HEAD.size  # bytes before the rows


class CorruptValue(ValueError):
    """A cached value is truncated, damaged or of another schema."""


class Layout:
    """Where the outputs of one operation stand in a value.

    Args:
        fields: name, dtype and shape of every output of one item, by name.

    Attributes:
        value_bytes: the size of each value.
    """

    def __init__(self, fields: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> None:
        self._names = [name for name, _, _ in fields]
        self._seed = zlib.crc32(repr([(name, dtype.str, shape) for name, dtype, shape in fields]).encode())
        self.value_bytes = HEADER
        self._places = []  # fields with their offset and strides in a value
        for name, dtype, shape in fields:
            row = np.empty(shape, dtype)
            self._places.append((name, dtype, shape, self.value_bytes, row.strides))
            self.value_bytes += row.nbytes

    @classmethod
    def of(cls, outputs: Mapping[str, np.ndarray]) -> Layout:
        """The layout of outputs [N, ...]; it depends on names, dtypes and shapes only."""
        return cls([(name, outputs[name].dtype, outputs[name].shape[1:]) for name in sorted(outputs)])

    def encode(self, outputs: Mapping[str, np.ndarray]) -> list[bytes]:
        """One value for each item of outputs [N, ...].

        Raises:
            ValueError: the outputs do not have this layout.
        """
        arrays = [outputs[name] for name in self._names]
        rows = item_rows(arrays, len(arrays[0]))
        if len(rows[0]) != self.value_bytes - HEADER:
            raise ValueError(f"an item has {len(rows[0])} bytes, but this layout has {self.value_bytes - HEADER}")
        now = int(time.time())
        seed = zlib.crc32(now.to_bytes(4, "little"), self._seed)
        return [HEAD.pack(MAGIC, zlib.crc32(row, seed), now) + row for row in rows]

    def check(self, value: bytes) -> None:
        """Check a value that comes from outside this process.

        Raises:
            CorruptValue: `encode` of this layout did not write it, or it is incomplete.
        """
        if value[:4] != MAGIC or len(value) != self.value_bytes:
            raise CorruptValue("magic or length does not match")
        if zlib.crc32(memoryview(value)[8:], self._seed).to_bytes(4, "little") != value[4:8]:
            raise CorruptValue("the checksum does not match")

    def decode(self, values: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The outputs [N, ...] of checked values, as writable arrays (views of one new buffer)."""
        count, buffer = len(values), bytearray().join(values)
        return {
            name: np.ndarray((count, *shape), dtype, buffer, offset, (self.value_bytes, *strides))
            for name, dtype, shape, offset, strides in self._places
        }


def created(value: bytes) -> int:
    """When a value was computed, in seconds since 1970."""
    seconds: int = HEAD.unpack_from(value)[2]
    return seconds
