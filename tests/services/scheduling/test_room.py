"""Batches on the event loop are large while nobody else is there, and small while other requests come."""

from __future__ import annotations

import asyncio

import pytest

from services.call import Call
from services.scheduling.batcher import Batcher
from services.scheduling.room import QUIET_SECONDS, Room
from services.telemetry import metrics
from tests.services.scheduling.squares import LABELS, Square, items

SHARED, ALONE = 4, 16


def request(room: Room, count: int) -> None:
    """One request of the process, as the gateway counts it, that reaches the operation of this room."""
    metrics.BEGUN.count += 1
    room.came(count)


def test_large_requests_alone_get_large_batches() -> None:
    room = Room(SHARED, ALONE)
    for now in range(5):
        request(room, 64)
        assert room.items(now) == ALONE


@pytest.mark.parametrize("count", [1, SHARED])
def test_small_requests_of_the_same_operation_count_as_others(count: int) -> None:
    room = Room(SHARED, ALONE)
    request(room, count)
    assert room.items(10.0) == SHARED
    request(room, 64)
    assert room.items(10.0 + 0.9 * QUIET_SECONDS) == SHARED
    assert room.items(10.0 + 1.1 * QUIET_SECONDS) == ALONE


def test_requests_of_other_routes_keep_batches_small_as_long_as_they_come() -> None:
    room = Room(SHARED, ALONE)
    for step in range(20):
        metrics.BEGUN.count += 1
        assert room.items(step * QUIET_SECONDS / 2) == SHARED
    assert room.items(20 * QUIET_SECONDS) == ALONE


def test_an_operation_whose_batches_gain_has_one_limit() -> None:
    room = Room(SHARED, 0)
    assert room.items(10.0) == SHARED


@pytest.mark.parametrize(("others", "batches"), [(0, [8]), (1, [2, 2, 2, 2])])
async def test_a_request_of_eight_items_is_one_batch_unless_another_request_came(
    others: int, batches: list[int]
) -> None:
    square = Square()
    batcher = Batcher(
        square, LABELS, None, batch_items=2, alone_items=8, queue_items=100, item_seconds=0.001, inline_seconds=0.002
    )
    await batcher.start()
    try:
        metrics.BEGUN.count += 1 + others
        inputs = items(*range(8))
        outputs = batcher.compute_now(inputs, Call())
        if outputs is None:
            outputs = (await asyncio.wait_for(batcher.submit(inputs, Call()), 5)).outputs
    finally:
        await batcher.stop()
    assert outputs["y"].tolist() == [number**2 for number in range(8)]
    assert [len(batch) for batch in square.batches] == batches
