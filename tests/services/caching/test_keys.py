"""Two questions share a key exactly when they are one question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.caching.keys import _base, item_keys, namespace

DIGEST = "ab" * 32
DTYPES: list[np.dtype[Any]] = [np.dtype("uint8"), np.dtype("int64"), np.dtype("float32")]
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
batches = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
words = st.text(max_size=8)


def key(inputs: dict[str, Any], digest: str = DIGEST, operation: str = "classify") -> str:
    return item_keys(digest, operation, {name: array[:1] for name, array in inputs.items()}, 1)[0]


@given(batches, words, words)
def test_equal_questions_have_equal_keys(images: np.ndarray, operation: str, name: str) -> None:
    assert key({name: images}, operation=operation) == key({name: images.copy()}, operation=operation)


@given(batches)
def test_a_row_has_the_same_key_in_every_batch_and_layout(images: np.ndarray) -> None:
    keys = item_keys(DIGEST, "classify", {"images": images}, len(images))
    assert keys == [key({"images": images[i : i + 1]}) for i in range(len(images))]
    assert keys == item_keys(DIGEST, "classify", {"images": np.asfortranarray(images)}, len(images))
    assert keys[::-1] == item_keys(DIGEST, "classify", {"images": images[::-1]}, len(images))


@given(batches, st.data())
def test_one_byte_makes_another_key(images: np.ndarray, data: st.DataObject) -> None:
    changed = bytearray(images[:1].tobytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    other = np.frombuffer(bytes(changed), images.dtype).reshape(images[:1].shape)
    assert key({"images": images}) != key({"images": other})


@given(st.binary(min_size=16, max_size=16), st.permutations(["|u1", "|i1", "<i4", "<f4", ">f4", "<i8", "<f8"]))
def test_the_same_bytes_as_another_dtype_make_another_key(content: bytes, two: list[str]) -> None:
    one, other = (np.frombuffer(content, dtype).reshape(1, -1) for dtype in two[:2])
    assert key({"images": one}) != key({"images": other})


@given(st.binary(min_size=24, max_size=24), st.permutations([(24,), (1, 24), (24, 1), (4, 6), (2, 12), (2, 3, 4)]))
def test_the_same_bytes_in_another_shape_make_another_key(content: bytes, two: list[tuple[int, ...]]) -> None:
    one, other = (np.frombuffer(content, np.uint8).reshape(1, *shape) for shape in two[:2])
    assert key({"images": one}) != key({"images": other})


@given(words, words, words, words)
def test_operations_and_names_never_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    row = np.zeros((1, 2), np.uint8)
    assume((a, b) != (c, d))
    assert key({b: row}, operation=a) != key({d: row}, operation=c)


@given(batches, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_another_bundle_has_other_keys_in_a_namespace_of_its_own(images: np.ndarray, digest: str) -> None:
    assume(digest != DIGEST)
    assert key({"images": images}) != key({"images": images}, digest=digest)
    assert key({"images": images}, digest=digest).startswith(namespace(digest))


def test_the_whole_digest_counts_not_only_the_part_in_clear() -> None:
    row = {"images": np.zeros((1, 2), np.uint8)}
    assert key(row, digest="a" * 64) != key(row, digest="a" * 63 + "b")


def test_every_input_counts_and_their_order_does_not() -> None:
    latents, labels = np.ones((1, 2), np.float32), np.ones((1,), np.int64)
    both = key({"latents": latents, "labels": labels})
    assert both == key({"labels": labels, "latents": latents})
    assert len({both, key({"latents": latents}), key({"latents": latents, "labels": labels + 1})}) == 3


@given(st.binary(min_size=2, max_size=8), st.integers(1, 7), st.integers(1, 7))
def test_bytes_do_not_move_from_one_input_to_the_next(content: bytes, cut: int, other: int) -> None:
    assume(cut != other and max(cut, other) < len(content))
    row = np.frombuffer(content, np.uint8).reshape(1, -1)
    assert key({"a": row[:, :cut], "b": row[:, cut:]}) != key({"a": row[:, :other], "b": row[:, other:]})


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4))
def test_two_inputs_that_swap_make_another_key(a: bytes, b: bytes) -> None:
    assume(a != b)
    one, other = np.frombuffer(a, np.uint8).reshape(1, 4), np.frombuffer(b, np.uint8).reshape(1, 4)
    assert key({"a": one, "b": other}) != key({"a": other, "b": one})


@pytest.mark.parametrize("name", ["platform.machine", "onnxruntime.__version__"])
def test_another_architecture_or_runtime_makes_another_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"images": np.zeros((1, 2), np.uint8)}
    before = key(row)
    monkeypatch.setattr(name, (lambda: "riscv64") if name == "platform.machine" else "0.0.1")
    _base.cache_clear()  # what a process computes with does not change while it runs
    assert key(row) != before
    assert key(row).startswith(namespace(DIGEST))
    monkeypatch.undo()
    _base.cache_clear()
    assert key(row) == before


def test_keys_are_160_bits_behind_a_namespace() -> None:
    (one,) = item_keys(DIGEST, "classify", {"images": np.zeros((1, 4), np.uint8)}, 1)
    assert one.startswith("duet:3:abababababababab:")
    assert len(bytes.fromhex(one.rpartition(":")[2])) == 20
