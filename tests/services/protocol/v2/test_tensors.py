"""Tensors on the wire: what goes out comes back, and what does not fit is refused."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.errors import DuetError, InvalidInput, MalformedRequest
from services.protocol.v2.tensors import DTYPES, datatype, from_binary, from_json, strings, to_binary, to_json

FIXED = sorted(set(DTYPES) - {"BYTES"})
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)


def fixed_size() -> st.SearchStrategy[np.ndarray]:
    numbers = st.sampled_from(FIXED).map(DTYPES.__getitem__)
    return numbers.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))


def finite() -> st.SearchStrategy[np.ndarray]:
    """Arrays that JSON can hold."""
    plain = {"allow_nan": False, "allow_infinity": False}
    numbers = st.sampled_from(FIXED).map(DTYPES.__getitem__)
    return numbers.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES, elements=plain if dtype.kind == "f" else None))


@given(fixed_size())
def test_every_fixed_size_datatype_survives_binary_bit_by_bit(array: np.ndarray) -> None:
    back = from_binary(memoryview(to_binary(array)), datatype(array), array.shape, "x")
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(finite(), st.booleans())
def test_every_fixed_size_datatype_survives_json_flat_or_nested(array: np.ndarray, nested: bool) -> None:
    data = orjson.loads(orjson.dumps(array.tolist() if nested else to_json(array)))
    back = from_json(data, datatype(array), array.shape, "x")
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=12))
def test_bytes_survive_binary(values: list[bytes]) -> None:
    raw = to_binary(strings(values))
    assert raw == b"".join(struct.pack("<I", len(value)) + value for value in values)
    assert from_binary(memoryview(raw), "BYTES", (len(values),), "x").tolist() == values


@given(st.lists(st.text(max_size=40), min_size=1, max_size=12))
def test_text_survives_json(values: list[str]) -> None:
    array = strings([value.encode() for value in values])
    assert to_json(array) == values
    assert from_json(values, "BYTES", (len(values),), "x").tolist() == array.tolist()


def test_bytes_that_are_no_text_still_make_an_answer() -> None:
    assert to_json(strings([b"\xff7"])) == ["\ufffd7"]


def test_binary_is_little_endian_and_row_major() -> None:
    assert to_binary(np.array([[1, 2], [3, 4]], "<i4").T) == struct.pack("<4i", 1, 3, 2, 4)
    assert from_binary(memoryview(struct.pack("<2q", -2, 7)), "INT64", (2,), "x").tolist() == [-2, 7]


def test_a_scalar_has_an_empty_shape() -> None:
    assert from_binary(memoryview(b"\x07"), "UINT8", (), "x").item() == 7
    assert from_json([7], "UINT8", (), "x").item() == 7


@given(fixed_size(), st.integers(1, 9), st.booleans())
def test_binary_of_another_size_is_refused_with_both_sizes(array: np.ndarray, by: int, longer: bool) -> None:
    raw = to_binary(array)
    wrong = raw + bytes(by) if longer else raw[: max(0, len(raw) - by)]
    with pytest.raises(MalformedRequest, match=rf"x has {len(wrong)} bytes, but .* needs {len(raw)}"):
        from_binary(memoryview(wrong), datatype(array), array.shape, "x")


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.data())
def test_bytes_cut_anywhere_are_refused(values: list[bytes], data: st.DataObject) -> None:
    raw = to_binary(strings(values))
    end = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(MalformedRequest):
        from_binary(memoryview(raw[:end]), "BYTES", (len(values),), "x")


@pytest.mark.parametrize("raw", [b"\x05\0\0\0four", b"\xff\xff\xff\xff", b"\x01", b"\0\0\0\0\x01\0\0"])
def test_an_element_that_runs_past_the_end_is_named(raw: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"x: element \d of BYTES ends after the end of the tensor"):
        from_binary(memoryview(raw), "BYTES", (1,), "x")


@given(st.binary(max_size=64), st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 9), max_size=3))
def test_any_bytes_are_a_tensor_or_a_refusal(raw: bytes, kind: str, shape: list[int]) -> None:
    try:
        array = from_binary(memoryview(raw), kind, tuple(shape), "x")
    except DuetError:
        return
    assert array.shape == tuple(shape)
    assert to_binary(array) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=2), parts, max_size=2),
    max_leaves=12,
)


@given(JSON, st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 5), max_size=3))
def test_any_json_is_a_tensor_or_a_refusal_that_names_the_field(data: Any, kind: str, shape: list[int]) -> None:
    try:
        array = from_json(data, kind, tuple(shape), "x")
    except DuetError as error:
        assert error.field in ("x", "x.data")  # noqa: PT017
        return
    assert (array.dtype, array.shape) == (DTYPES[kind], tuple(shape))
    assert array.size == math.prod(shape)


@pytest.mark.parametrize("data", [None, 7, "7", {"0": 7}, True])
def test_data_is_a_list(data: object) -> None:
    with pytest.raises(MalformedRequest, match=r"x\.data is not a list; send a JSON list"):
        from_json(data, "UINT8", (1,), "x")


@pytest.mark.parametrize(("data", "kind"), [([1, 2, 3], "UINT8"), ([[1], [2], [3]], "FP32"), (["a"] * 3, "BYTES")])
def test_a_wrong_count_is_refused_with_both(data: list[Any], kind: str) -> None:
    with pytest.raises(MalformedRequest, match=r"3 .* shape \[2, 2\] needs 4"):
        from_json(data, kind, (2, 2), "x")


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2], 3], [[[1], [2]], [[3], 4]], [[1, 2, 3], []]])
@pytest.mark.parametrize("kind", ["UINT8", "FP32", "BYTES"])
def test_ragged_lists_are_refused_even_where_the_count_fits(data: list[Any], kind: str) -> None:
    with pytest.raises(InvalidInput, match="ragged"):
        from_json(data, kind, (3,), "x")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([1, "2"], "UINT8"),
        (["1", "2"], "FP32"),
        ([1, True], "UINT8"),
        ([0.5, False], "FP32"),
        ([1, 0], "BOOL"),
        ([1, None], "FP32"),
        ([1, {}], "INT64"),
        ([1, [2]], "INT64"),
        ([1.0, 2.0], "UINT8"),
        (["a", 1], "BYTES"),
        (["a", None], "BYTES"),
        (["a", ["b"]], "BYTES"),
    ],
)
def test_a_value_of_another_type_is_refused(data: list[Any], kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"x\.data holds values that are not"):
        from_json(data, kind, (2,), "x")


@pytest.mark.parametrize(
    ("value", "kind"), [(-1, "UINT8"), (256, "UINT8"), (2**31, "INT32"), (2**63, "INT64"), (1e39, "FP32")]
)
def test_a_number_too_large_for_its_datatype_is_refused(value: float, kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"too large for {kind}"):
        from_json([value], kind, (1,), "x")


def test_one_long_text_among_numbers_costs_no_memory() -> None:
    # As an array of text, this would take 4 TB.
    with pytest.raises(InvalidInput, match="not FP32"):
        from_json(["x" * 1_000_000] + [0] * 1_000_000, "FP32", (1_000_001,), "x")


def test_deep_nesting_is_followed_without_recursion() -> None:
    data: list[Any] = [7]
    for _ in range(5000):
        data = [data]
    assert from_json(data, "UINT8", (1,), "x").tolist() == [7]
