"""A cached value is what was put in, or it is CorruptValue; nothing else can come out of it."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.caching.values import MAGIC, CorruptValue, decode, encode

DTYPES: list[np.dtype[Any]] = [np.dtype("uint8"), np.dtype("int64"), np.dtype("float32")]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
items = st.dictionaries(st.text(max_size=10), arrays, max_size=4)


def signed(body: bytes) -> bytes:
    """A value whose checksum holds, whatever it says."""
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


@given(items)
def test_what_goes_in_comes_out_bit_by_bit(item: dict[str, np.ndarray]) -> None:
    back = decode(encode(item))
    assert list(back) == list(item)
    for name, array in item.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_a_view_that_is_not_contiguous_is_kept_as_it_reads() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3]
    assert np.array_equal(decode(encode({"x": array}))["x"], array)


def test_the_layout_of_values_in_redis_is_pinned() -> None:
    # Replicas of two releases share one Redis: another layout needs another magic.
    value = encode({"p": np.array([1, 2], np.float32)})
    assert value == b'DUE1\xaf\x82\xadU\x13\0\0\0[["p", "<f4", [2]]]\0\0\x80?\0\0\0@'


@given(items, st.data())
def test_every_truncation_is_noticed(item: dict[str, np.ndarray], data: st.DataObject) -> None:
    value = encode(item)
    with pytest.raises(CorruptValue):
        decode(value[: data.draw(st.integers(0, len(value) - 1))])


def test_every_truncation_of_one_value_is_noticed() -> None:
    value = encode({"probabilities": np.zeros(3, np.float32)})
    for length in range(len(value)):
        with pytest.raises(CorruptValue):
            decode(value[:length])


@given(items, st.data())
def test_every_flipped_bit_is_noticed(item: dict[str, np.ndarray], data: st.DataObject) -> None:
    value = bytearray(encode(item))
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptValue):
        decode(bytes(value))


@given(items, st.binary(min_size=1, max_size=20))
def test_what_follows_a_value_is_noticed(item: dict[str, np.ndarray], rest: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode(encode(item) + rest)


@given(st.binary(max_size=64))
def test_what_was_never_a_value_is_noticed(value: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode(value)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b'[["x", "<f4"]]',
        b'[["x", "<f4", [9]]]',
        b'[["x", "<f4", [-1]]]',
        b'[["x", "<f4", "2"]]',
        b'[["x", "<f4", [9223372036854775807, 9]]]',
        b'[["x", "<f4", [1e300]]]',
        b'[["x", "<f4", [' + b"9" * 99 + b"]]]",
        b"[" * 100_000,
        b'[["x", "|O", [1]]]',
        b'[["x", "<f8", [1]]]',
        b'[[["x"], "<f4", [1]]]',
        b'[["x", ["<f4"], [1]]]',
    ],
    ids=lambda header: header[:40].decode(),
)
def test_a_header_that_encode_never_wrote_is_noticed_under_a_valid_checksum(header: bytes) -> None:
    with pytest.raises(CorruptValue):
        decode(signed(len(header).to_bytes(4, "little") + header + bytes(8)))


@given(st.binary(max_size=64))
def test_nothing_under_a_valid_checksum_raises_another_error(body: bytes) -> None:
    with contextlib.suppress(CorruptValue):
        decode(signed(body))
