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
    """Which of a client's images it has sent before, among its last REMEMBERED different ones.

    There are two sets, so that nothing is deleted singly: up to twice as many are remembered, in half a megabyte.
    """

    __slots__ = ("_older", "_recent")

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: set[int] = set()

    def new(self, marks: Sequence[int]) -> list[int]:
        """The places of the images that are none of those, by their marks; they are from now on."""
        recent, older, places = self._recent, self._older, []
        for place, mark in enumerate(marks):
            if mark in recent or mark in older:
                continue
            if len(recent) == REMEMBERED:
                older = self._older = recent
                recent = self._recent = set()
            recent.add(mark)
            places.append(place)
        return places
