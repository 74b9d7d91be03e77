"""Cached values: the outputs of one item as bytes that check themselves. Never pickle.

Layout: magic (4 bytes, the schema), CRC-32 (4, little-endian), time of computing (4, seconds since 1970), then the
item's row of every output in C order, in the order of their names. How the rows lie is not in the value: whoever reads
it knows the operation. The checksum begins with that description, so a value of other outputs does not pass for one.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

MAGIC = b"DUE2"
HEADER = 12  # bytes before the rows


class CorruptValue(ValueError):
    """A cached value is truncated, damaged or of another schema."""


class Layout:
    """How the outputs of one operation lie in a value.

    Args:
        record: a structured dtype, one field an output, of one item.

    Attributes:
        value_bytes: the size of every value.
    """

    def __init__(self, record: np.dtype[np.void]) -> None:
        self._record = record
        self._names = record.names or ()
        self._seed = zlib.crc32(repr(record.descr).encode())
        self.value_bytes = HEADER + record.itemsize

    @classmethod
    def of(cls, outputs: Mapping[str, np.ndarray]) -> Layout:
        """The layout of outputs [N, ...]; only names, dtypes and shapes are looked at."""
        fields = [(name, outputs[name].dtype.newbyteorder("<"), outputs[name].shape[1:]) for name in sorted(outputs)]
        return cls(np.dtype(fields))

    def encode(self, outputs: Mapping[str, np.ndarray]) -> list[bytes]:
        """One value for each item of outputs [N, ...]."""
        count = len(next(iter(outputs.values())))
        rows = np.empty(count, self._record)
        for name, array in outputs.items():
            rows[name] = array
        raw, size = rows.tobytes(), self._record.itemsize
        created = int(time.time()).to_bytes(4, "little")
        seed = zlib.crc32(created, self._seed)
        values = []
        for start in range(0, count * size, size):
            row = raw[start : start + size]
            values.append(b"".join((MAGIC, zlib.crc32(row, seed).to_bytes(4, "little"), created, row)))
        return values

    def check(self, value: bytes) -> None:
        """Trust a value that comes from outside this process.

        Raises:
            CorruptValue: it was not written by `encode` of this layout, or not wholly.
        """
        if value[:4] != MAGIC or len(value) != self.value_bytes:
            raise CorruptValue("magic or length does not match")
        if zlib.crc32(memoryview(value)[8:], self._seed).to_bytes(4, "little") != value[4:8]:
            raise CorruptValue("the checksum does not match")

    def decode(self, values: Sequence[bytes]) -> dict[str, np.ndarray]:
        """The outputs [N, ...] of checked values, as arrays of the caller's own."""
        rows = np.frombuffer(b"".join([value[HEADER:] for value in values]), self._record)
        return {name: rows[name].copy() for name in self._names}


def created(value: bytes) -> int:
    """When a value was computed, in seconds since 1970."""
    return int.from_bytes(value[8:HEADER], "little")
