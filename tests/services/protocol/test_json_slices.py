"""Large JSON is parsed in slices, with the values that orjson gives, and no slice is large."""

from __future__ import annotations

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import TooLarge
from services.protocol import json_slices
from services.protocol.json_slices import NotJSON, loads, released

TEXTS = st.sampled_from(['a\\"b,]}{[', "\\\\", "é\u2028", "x" * 50, ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXTS,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=60,
)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_slices, "SLICE", 16)
    monkeypatch.setattr(json_slices, "FLAT_BYTES", 16)
    monkeypatch.setattr(json_slices, "DEPTH", 99)


@given(VALUES, st.booleans())
def test_values_are_those_of_json(value: Any, spaced: bool) -> None:
    json_slices.SLICE = json_slices.FLAT_BYTES = 16
    json_slices.DEPTH = 99  # hypothesis runs outside the fixture of one example
    text = json.dumps(value, indent=2 if spaced else None).encode()
    assert loads(text) == value


@given(VALUES, st.integers(0, 2**32))
def test_what_is_not_json_is_refused_as_orjson_refuses_it(value: Any, seed: int) -> None:
    text, numbers = bytearray(json.dumps(value).encode()), random.Random(seed)
    for _ in range(numbers.randint(1, 3)):
        at = numbers.randrange(len(text))
        text[at : at + 1] = numbers.choice([b"", b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"1", b" "])
        if not text:
            return
    try:
        expected = orjson.loads(bytes(text))
    except orjson.JSONDecodeError:
        with pytest.raises(NotJSON):
            loads(text)
    else:
        assert loads(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b",".join([b"0"] * 500) + b"]",
        b'{"a": [' + b",".join([b"[1,2]"] * 100) + b'], "b": {"c": [' + b",".join([b'"x"'] * 100) + b"]}}",
    ],
)
def test_no_slice_is_large(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def parsed(part: bytes) -> Any:
        sizes.append(len(part))
        return orjson.loads(part)

    monkeypatch.setattr(json_slices, "_parsed", parsed)
    assert loads(text) == json.loads(text)
    assert max(sizes) <= 16 + 2  # and its brackets
    assert len(sizes) > 10


def test_a_long_text_is_itself() -> None:
    for text in ("x" * 100, "é" * 100, 'quote " and \\ slash' * 10):
        assert loads(json.dumps(text, ensure_ascii=False).encode()) == text
    for broken in (b'"' + b"\xff" * 100 + b'"', b'"' + b"\n" * 100 + b'"', b'"' + b"x" * 100, b'"a"' + b'"b"' * 50):
        with pytest.raises(NotJSON):
            loads(broken)


def test_too_many_objects_for_memory_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_slices, "CONTAINERS", 100)
    monkeypatch.setattr(json_slices, "MEMBERS", 50)
    with pytest.raises(TooLarge, match="the body has 102 lists and objects; at most 100"):
        loads(b"[" + b",".join([b"[]"] * 101) + b"]")
    with pytest.raises(TooLarge, match="an object of the body has more than 50 members"):
        loads(b"{" + b",".join(b'"%d":0' % i for i in range(60)) + b"}")


def test_a_value_that_is_nested_too_deeply_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_slices, "DEPTH", 3)
    with pytest.raises(NotJSON, match="nested more than 3 deep"):
        loads(b"[" * 6 + b"1," * 50 + b"1" + b"]" * 6)


def test_what_is_released_is_empty() -> None:
    tree = {"a": [[1, 2], {"b": [3] * 10_000}], "c": 5}
    inner = tree["a"]
    released(tree)
    assert (tree, inner) == ({}, [])


def test_a_text_of_numbers_is_short_up_to_a_larger_size_than_one_of_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_slices, "SLICE", 100)
    monkeypatch.setattr(json_slices, "FLAT_BYTES", 1000)
    monkeypatch.setattr(json_slices, "FLAT_CONTAINERS", 10)
    numbers, lists = b"[" + b"1," * 400 + b"1]", b"[" + b"[]," * 200 + b"1]"
    assert json_slices.is_short(numbers)
    assert not json_slices.is_short(lists)
    assert not json_slices.is_short(b"[" + b"1," * 600 + b"1]")
    assert json_slices.is_short(lists[:100])
    assert loads(numbers) == [1] * 401
