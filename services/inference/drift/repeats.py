"""Images that a client sends again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REMEMBERED = 4096  # different images of a client


def marks_of(images: np.ndarray) -> list[int]:
    """64-bit hashes of the pixels of images uint8 [N,...], of this process only (SipHash with a key of its own)."""
    content = images.tobytes()
    if len(images) == 1:
        return [hash(content)]
    size = len(content) // len(images)
    return [hash(content[begin : begin + size]) for begin in range(0, len(content), size)]


class Repeats:
    """Which of a client's images it has sent before, among its last REMEMBERED different ones."""

    __slots__ = ("_known", "_next", "_order")

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._order: list[int] = []  # a ring, once it is full
        self._next = 0

    def new(self, marks: Sequence[int]) -> list[int]:
        """The places of the images that are none of those, by their marks; they are from now on."""
        known, order, places = self._known, self._order, []
        for place, mark in enumerate(marks):
            if mark in known:
                continue
            known.add(mark)
            places.append(place)
            if len(order) < REMEMBERED:
                order.append(mark)
                continue
            following = self._next
            known.discard(order[following])
            order[following] = mark
            self._next = (following + 1) % REMEMBERED
        return places
