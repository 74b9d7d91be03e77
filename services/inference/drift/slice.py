"""What is counted in one slice of time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from services.inference.drift.events import Events


class Slice:
    """The images of one slice, by client. Counts add up, so that several processes may share one test.

    Attributes:
        counts: for each client, by name: the images that vote, by cell of their p-value, then by class.
        images: all images.
        repeats: those that do not vote, because their client had sent them before.
    """

    __slots__ = ("_cells", "_edges", "_width", "counts", "images", "repeats")

    def __init__(self, events: Events) -> None:
        self._edges, self._cells, self._width = events.edges, events.cells, events.width
        self.counts: dict[str, list[int]] = {}
        self.images = 0
        self.repeats = 0

    def count(
        self, name: str, p_values: Sequence[float], labels: Sequence[int] | None, voting: Sequence[int], images: int
    ) -> None:
        """Count the images of a request.

        Args:
            name: of the client.
            p_values: of the images.
            labels: their predicted classes; None: they have none.
            voting: the places of the images that are no repeats.
            images: number of all images.
        """
        self.images += images
        self.repeats += images - len(voting)
        if not voting:
            return
        counts = self.counts.get(name)
        if counts is None:
            counts = self.counts[name] = [0] * self._width
        edges, cells = self._edges, self._cells
        for place in voting:
            counts[bisect_right(edges, p_values[place])] += 1
        if labels is not None and self._width > cells:
            for place in voting:
                counts[cells + labels[place]] += 1

    def add(self, other: Slice) -> None:
        """Add what another process counted in the same slice."""
        for name, counts in other.counts.items():
            mine = self.counts.get(name)
            self.counts[name] = [a + b for a, b in zip(mine, counts, strict=True)] if mine else list(counts)
        self.images += other.images
        self.repeats += other.repeats
