"""Who has a stream of their own, and which images are repeats; both are bounded."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from services.inference.drift.clients import IDLE, NAME_BYTES, NAMED, Clients
from services.inference.drift.repeats import REMEMBERED, Repeats, marks_of


def test_the_first_64_clients_have_streams_and_the_others_share_one() -> None:
    clients = Clients((1,))
    streams = [clients.of(b"client-%d" % i, 0) for i in range(100)]
    assert len({id(stream) for stream in streams[:NAMED]}) == NAMED
    assert all(stream is clients.rest for stream in streams[NAMED:])
    assert clients.of(b"client-3", 1) is streams[3]
    assert clients.known("client-3") is streams[3]
    assert clients.known("client-70") is clients.rest


def test_a_client_without_a_name_counts_with_the_rest() -> None:
    clients = Clients((1,))
    assert clients.of(None, 0) is clients.of(b"", 0) is clients.rest
    assert not clients.named


@pytest.mark.parametrize(
    "name",
    [b"x" * 10_240, b"x" * (NAME_BYTES + 1), "é".encode(), "é".encode("latin-1"), b"\xff\xfe", b"a\tb", b"a\x7f", b"*"],
)
def test_a_name_that_is_none_counts_with_the_rest(name: bytes) -> None:
    clients = Clients((1,))
    assert clients.of(name, 0) is clients.rest
    assert not clients.named


def test_a_name_may_have_64_characters() -> None:
    clients = Clients((1,))
    assert clients.of(b"x" * NAME_BYTES, 0).name == "x" * NAME_BYTES
    assert clients.of(b"camera 7 / hall", 0).name == "camera 7 / hall"


def test_an_idle_client_gives_its_place_to_another_and_takes_its_evidence_along() -> None:
    clients = Clients((1,))
    for i in range(NAMED):
        clients.of(b"client-%d" % i, i)
    clients.of(b"client-0", IDLE).sums[:] = 5
    clients.of(b"client-1", IDLE + 1).sums[:] = 7
    assert clients.of(b"late", IDLE + 1) is clients.rest  # client-2 is not idle yet
    late = clients.of(b"late", IDLE + 2)
    assert (late.name, late.sums.sum()) == ("late", 0)
    assert b"client-2" not in clients.named
    assert clients.of(b"later", IDLE + 2) is clients.rest
    assert clients.of(b"client-0", IDLE + 2).sums.sum() == 5


def test_images_that_came_before_are_repeats() -> None:
    repeats = Repeats()
    assert repeats.new([1, 2, 1, 3]) == [0, 1, 3]
    assert repeats.new([3, 4]) == [1]
    assert repeats.new([1, 2]) == []


def test_the_last_4096_different_images_are_remembered_and_at_most_twice_as_many() -> None:
    repeats = Repeats()
    for number in range(5 * REMEMBERED):
        assert repeats.new([number]) == [0]
        assert repeats.new([max(0, number - REMEMBERED + 1)]) == []
    assert repeats.new([3 * REMEMBERED - 1]) == [0]
    assert repeats.new(range(10 * REMEMBERED, 20 * REMEMBERED)) == list(range(10 * REMEMBERED))


def test_marks_tell_images_apart_by_their_pixels() -> None:
    images = np.zeros((3, 1, 4, 4), np.uint8)
    images[1, 0, 3, 3] = 1
    first, second, third = marks_of(images)
    assert first == third != second
    assert marks_of(images[1:2]) == [second]
    assert marks_of(images.transpose(0, 1, 3, 2)[:1]) == [first]


def test_memory_is_bounded_however_many_clients_come() -> None:
    def used(count: int) -> int:
        clients = Clients((4, 2, 14))
        tracemalloc.start()
        for i in range(count):
            clients.of(b"client-%d" % i, 0).repeats.new([i])
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(clients.named) == min(count, NAMED)
        return size

    assert used(1) < used(NAMED) / 30
    assert used(20_000) < used(NAMED) + 2**20  # the marks of the rest
