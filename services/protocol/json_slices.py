"""Parses large JSON in slices, because orjson holds Python's global lock for the whole text.

A text of 16 MiB takes 200 ms, in which no other thread can run. Here members of long lists and objects are grouped into
texts of at most 128 KiB, and orjson parses each group alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import orjson

from services.errors import TooLarge

SLICE = 2**17  # bytes that are parsed at once: 1 to 5 ms
FLAT_BYTES = 2**18  # of a text with at most FLAT_CONTAINERS lists and objects, which is parsed at once in 1 to 2 ms
FLAT_CONTAINERS = 2**12
FREED = 2**12  # members that are freed at once
DEPTH = 12  # levels of lists and objects larger than a slice: V2 nests its tensors eight deep, below four others

# 256 colour images of 64 x 64 are a million lists, and take 200 MB while they are converted.
CONTAINERS = 2**21
MEMBERS = 2**14  # of one object

KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:')
PAIRS = {ord("["): ord("]"), ord("{"): ord("}")}
SPACE = b" \t\r\n"
KINDS = np.zeros(256, np.int8)  # 1: opens, -1: closes, 2: comma, 3: quote
KINDS[list(b"[{")], KINDS[list(b"]}")], KINDS[ord(",")], KINDS[ord('"')] = 1, -1, 2, 3


class NotJSON(ValueError):
    """The text is not JSON."""


def is_short(text: bytes | bytearray | memoryview) -> bool:
    """Whether one call parses a text within some milliseconds: lists and objects take far longer than numbers."""
    if len(text) <= SLICE:
        return True
    if len(text) > FLAT_BYTES:
        return False
    whole = bytes(text)
    return whole.count(b"[") + whole.count(b"{") <= FLAT_CONTAINERS


def loads(text: bytes | bytearray | memoryview) -> Any:
    """The value of a JSON text.

    Raises:
        NotJSON: it is not valid JSON, or large parts of it are nested too deeply.
        TooLarge: it would become too many objects in memory.
    """
    if is_short(text):
        return _parsed(text)
    codes = np.frombuffer(text, np.uint8)
    containers = np.count_nonzero(codes == ord("[")) + np.count_nonzero(codes == ord("{"))
    if containers > CONTAINERS:  # strings count too, but those of images hold none
        message = f"the body has {containers} lists and objects; at most {CONTAINERS} are allowed"
        raise TooLarge(f"{message}; send files or binary tensors", field="body")
    return _loads(bytes(text), DEPTH)


def released(tree: Any) -> None:
    """Empty the lists and objects of a value, in slices too: Python frees a long list while it holds its lock."""
    members = tree if isinstance(tree, list) else list(tree.values()) if isinstance(tree, dict) else []
    if isinstance(tree, dict):
        while tree:
            for key in list(islice(tree, FREED)):
                del tree[key]
    while members:
        some = members[-FREED:]
        del members[-FREED:]
        for member in some:
            if isinstance(member, dict) or (isinstance(member, list) and _deep(member)):
                released(member)


def _deep(members: list[Any]) -> bool:
    """Whether a list is long, or holds lists or objects."""
    return len(members) > FREED or (bool(members) and isinstance(members[0], list | dict))


def _parsed(text: bytes | bytearray | memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotJSON(str(error)) from None


def _loads(text: bytes, depth: int) -> Any:
    text = text.strip(SPACE)
    kind = text[:1]
    if len(text) <= SLICE or kind not in (b"[", b"{", b'"'):
        return _parsed(text)
    if kind == b'"':
        return _string(text)
    if not depth:
        raise NotJSON(f"its lists and objects are nested more than {DEPTH} deep")
    listed: list[Any] = []
    keyed: dict[str, Any] = {}
    for group in _groups(text):
        if len(group) > SLICE:
            if kind == b"[":
                listed.append(_loads(group, depth - 1))
            elif key := KEY.match(group):
                keyed[_parsed(key[1])] = _loads(group[key.end() :], depth - 1)
            else:
                raise NotJSON("a member of an object has no name")
        elif not group.strip(SPACE):
            raise NotJSON("a value is missing between two commas")
        elif kind == b"[":
            listed += _parsed(b"[%b]" % group)
        else:
            keyed |= _parsed(b"{%b}" % group)
        if len(keyed) > MEMBERS:
            raise TooLarge(f"an object of the body has more than {MEMBERS} members", field="body")
    return listed if kind == b"[" else keyed


def _string(text: bytes) -> str:
    """A long string, which NumPy checks without the lock; one with escapes is left to orjson."""
    codes = np.frombuffer(text, np.uint8)
    if (codes == ord("\\")).any():
        value: str = _parsed(text)
        return value
    if (codes < ord(" ")).any() or np.count_nonzero(codes == ord('"')) != 2 or text[-1] != ord('"'):
        raise NotJSON("a string is not closed, or holds control characters")
    try:
        return text[1:-1].decode()
    except UnicodeDecodeError:
        raise NotJSON("a string is not UTF-8") from None


def _groups(text: bytes) -> Iterator[bytes]:
    """The members between the outer brackets, in groups of at most a slice; a larger member is a group of its own."""
    start = 1
    for cut in _cuts(text):
        yield text[start:cut]
        start = cut + 1


def _cuts(text: bytes) -> Iterator[int]:
    """Where members of the outer brackets end: the first and the last comma in each slice, and the last bracket."""
    codes = np.frombuffer(text, np.uint8)
    depth, quoted, start = 0, False, 0
    while start < len(codes):
        stop = min(start + SLICE, len(codes))
        while stop < len(codes) and text[stop - 1] == ord("\\"):  # an escape stays in one piece
            stop += 1
        at, kinds = _marks(codes[start:stop])
        quotes = kinds == 3
        inside = (np.cumsum(quotes) + quoted) % 2 == 1
        steps = np.where(inside | (np.abs(kinds) != 1), 0, kinds)
        depths = depth + np.cumsum(steps, dtype=np.int64)
        ends = np.flatnonzero((depths <= 0) & (steps != 0))
        last = int(ends[0]) if len(ends) else len(at)
        commas = at[:last][(depths[:last] == 1) & (kinds[:last] == 2) & ~inside[:last]]
        for cut in commas[:1], commas[1:][-1:]:
            yield from (start + cut).tolist()
        if len(ends):
            end = start + int(at[last])
            if text[end] != PAIRS[text[0]]:
                raise NotJSON("its first and its last bracket differ")
            if end != len(codes) - 1:
                raise NotJSON(f"{len(codes) - 1 - end} bytes follow its end")
            yield end
            return
        depth, quoted = int(depths[-1]) if len(at) else depth, bool(inside[-1]) if len(at) else quoted
        start = stop
    raise NotJSON("it ends before its last bracket")


def _marks(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of brackets, commas and quotes, without escaped quotes, and their kinds."""
    kinds = KINDS[codes]
    slashes = codes == ord("\\")
    if slashes.any():
        edges = np.flatnonzero(np.diff(np.concatenate([[False], slashes, [False]]).astype(np.int8)))
        starts, stops = edges[::2], edges[1::2]
        escaped = stops[(stops - starts) % 2 == 1]  # what follows an odd number of backslashes
        kinds[escaped[escaped < len(kinds)]] = 0
    at = np.flatnonzero(kinds)
    return at, kinds[at]
