"""A cached value is what was put in, or it is CorruptValue; nothing else can come out of it."""

from __future__ import annotations

import pickle
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.caching.values import HEADER, MAGIC, CorruptValue, Layout, created

DTYPES: list[np.dtype[Any]] = [np.dtype(name) for name in ("bool", "uint8", "int64", "float32", ">f4", "float64")]
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
names = st.text(min_size=1, max_size=10)


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """What a model may answer: at least one output [N, ...], any bits."""
    count = draw(st.integers(1, 4))
    arrays = {}
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
        arrays[name] = draw(hnp.arrays(dtype, (count, *shape)))
    return arrays


def described(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.str, array.shape[1:]) for name, array in arrays.items()}


def sealed(layout: Layout, rest: bytes) -> bytes:
    """A value of this layout whose checksum holds, whatever it says."""
    return MAGIC + zlib.crc32(rest, layout._seed).to_bytes(4, "little") + rest


def refuse(layout: Layout, value: bytes) -> None:
    with pytest.raises(CorruptValue):
        layout.check(value)


@given(outputs())
def test_what_goes_in_comes_out_bit_by_bit(arrays: dict[str, np.ndarray]) -> None:
    layout = Layout.of(arrays)
    values = layout.encode(arrays)
    for value in values:
        layout.check(value)
        assert len(value) == layout.value_bytes
    back = layout.decode(values)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


@given(outputs(), st.data())
def test_values_are_of_items_and_come_back_in_any_order(arrays: dict[str, np.ndarray], data: st.DataObject) -> None:
    layout = Layout.of(arrays)
    values = layout.encode(arrays)
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=8))
    back = layout.decode([values[row] for row in rows])
    for name, array in arrays.items():
        assert back[name].tobytes() == array[rows].tobytes()


def test_what_is_decoded_belongs_to_the_caller() -> None:
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    layout = Layout.of(arrays)
    values = layout.encode(arrays)
    layout.decode(values)["x"][:] = -1
    assert np.array_equal(layout.decode(values)["x"], arrays["x"])


def test_a_view_that_is_not_contiguous_is_kept_as_it_reads() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3]
    layout = Layout.of({"x": array})
    assert np.array_equal(layout.decode(layout.encode({"x": array}))["x"], array)


def test_the_layout_of_values_in_redis_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    # Replicas of two releases share one Redis: another layout needs another magic.
    monkeypatch.setattr("services.caching.values.time.time", lambda: 1_700_000_000.9)
    arrays = {"p": np.array([[1, 2]], np.float32), "a": np.array([7], np.uint8)}
    [value] = Layout.of(arrays).encode(arrays)
    assert value == b"DUE2\xbcy\xcc[\0\xf1Se\x07\0\0\x80?\0\0\0@"
    assert created(value) == 1_700_000_000


@given(outputs(), st.data())
def test_every_truncation_is_noticed(arrays: dict[str, np.ndarray], data: st.DataObject) -> None:
    layout = Layout.of(arrays)
    [value, *_] = layout.encode(arrays)
    refuse(layout, value[: data.draw(st.integers(0, len(value) - 1))])


def test_every_truncation_of_one_value_is_noticed() -> None:
    arrays = {"probabilities": np.zeros((1, 3), np.float32)}
    layout = Layout.of(arrays)
    [value] = layout.encode(arrays)
    for length in range(len(value)):
        refuse(layout, value[:length])


@given(outputs(), st.data())
def test_every_flipped_bit_is_noticed(arrays: dict[str, np.ndarray], data: st.DataObject) -> None:
    layout = Layout.of(arrays)
    value = bytearray(layout.encode(arrays)[0])
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    refuse(layout, bytes(value))


@given(outputs(), st.binary(min_size=1, max_size=20))
def test_what_follows_a_value_is_noticed(arrays: dict[str, np.ndarray], rest: bytes) -> None:
    layout = Layout.of(arrays)
    refuse(layout, layout.encode(arrays)[0] + rest)


@given(outputs(), st.binary(max_size=64))
def test_what_was_never_a_value_is_noticed(arrays: dict[str, np.ndarray], value: bytes) -> None:
    refuse(Layout.of(arrays), value)


PLAIN = {"x": np.zeros((1, 2), np.float32)}
OTHERS: dict[str, dict[str, np.ndarray]] = {
    "another name": {"y": np.zeros((1, 2), np.float32)},
    "another dtype": {"x": np.zeros((1, 2), np.int32)},
    "another shape": {"x": np.zeros((1, 2, 1), np.float32)},
    "plain bytes": {"x": np.zeros((1, 8), np.uint8)},
    "two outputs": {"x": np.zeros(1, np.float32), "z": np.zeros(1, np.float32)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_value_of_other_outputs_is_noticed_though_it_has_as_many_bytes(name: str) -> None:
    one, other = Layout.of(PLAIN), Layout.of(OTHERS[name])
    assert one.value_bytes == other.value_bytes
    refuse(one, other.encode(OTHERS[name])[0])
    refuse(other, one.encode(PLAIN)[0])


@given(outputs(), outputs())
def test_layouts_never_take_each_others_values(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    first, second = Layout.of(one), Layout.of(other)
    assume(described(one) != described(other))
    refuse(second, first.encode(one)[0])


def test_a_value_of_another_schema_is_noticed() -> None:
    layout = Layout.of(PLAIN)
    [value] = layout.encode(PLAIN)
    refuse(layout, b"DUE1" + value[4:])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_read(protocol: int) -> None:
    pickled = pickle.dumps(PLAIN, protocol)
    refuse(Layout.of(PLAIN), pickled)
    padded = {"x": np.zeros((1, len(pickled) - HEADER), np.uint8)}
    refuse(Layout.of(padded), pickled)  # though it has the length of a value


@given(outputs(), st.data())
def test_nothing_under_a_valid_checksum_raises_another_error(
    arrays: dict[str, np.ndarray], data: st.DataObject
) -> None:
    layout = Layout.of(arrays)
    row = data.draw(st.binary(min_size=layout.value_bytes - 8, max_size=layout.value_bytes - 8))
    value = sealed(layout, row)
    layout.check(value)
    back = layout.decode([value])
    assert {name: array.nbytes for name, array in back.items()} == {name: a[:1].nbytes for name, a in arrays.items()}
    refuse(layout, sealed(layout, row + b"\0"))
    refuse(layout, sealed(layout, row[:-1]))
