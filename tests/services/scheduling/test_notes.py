"""What traces of requests and batches tell of a batcher: who shared a batch, who waited, which run failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import numpy as np
import pytest

from services.call import Call
from services.errors import CallerLeft, InferenceFailed
from services.scheduling.batcher import Batcher
from services.telemetry.trace import TRACING, Batch, Trace, Tracer

Arrays = dict[str, np.ndarray]
LABELS = ("noted", "1", "double")


class Kept(list[Trace | Batch]):
    put = list.append


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    monkeypatch.setattr(TRACING, "tracer", Tracer(1.0, kept))
    return kept


def traced(deadline: float | None = None) -> tuple[Call, Trace]:
    assert TRACING.tracer is not None
    trace = TRACING.tracer.begin({}, 0.0)
    assert trace is not None
    return Call(deadline, trace=trace), trace


def double(inputs: Mapping[str, np.ndarray]) -> Arrays:
    if (inputs["x"] < 0).any():
        raise ValueError("below zero")
    return {"y": 2 * inputs["x"]}


@asynccontextmanager
async def running(run: Callable[[Mapping[str, np.ndarray]], Arrays] = double, most: int = 4) -> AsyncIterator[Batcher]:
    batcher = Batcher(run, LABELS, None, batch_items=most, queue_items=64, digest="d1")
    await batcher.start()
    yield batcher
    await batcher.stop()


def items(*values: float) -> Arrays:
    return {"x": np.array(values)}


def names(trace: Trace) -> list[str]:
    return [stage.name for stage in trace.stages]


async def test_a_batch_is_linked_to_those_of_its_requests_that_are_traced(kept: Kept) -> None:
    calls = [traced() for _ in range(2)]
    async with running() as batcher:
        await asyncio.gather(*(batcher.submit(items(1), call) for call in (*(call for call, _ in calls), Call())))
    [batch] = kept
    assert isinstance(batch, Batch)
    assert batch.served == [trace.ids for _, trace in calls]
    assert (batch.items, batch.requests, batch.error) == (3, 3, "")
    assert batch.model == ("noted", "1", "d1", "double")
    for _, trace in calls:
        assert names(trace) == ["queue", "compute"]
        assert trace.stages[1].batch == batch.ids
        assert trace.stages[0].end == trace.stages[1].begin == batch.begin < batch.end


async def test_a_request_of_several_batches_waits_once(kept: Kept) -> None:
    call, trace = traced()
    async with running(most=2) as batcher:
        await batcher.submit(items(1, 2, 3, 4, 5), call)
    assert names(trace) == ["queue", "compute", "compute", "compute"]
    assert [stage.batch for stage in trace.stages[1:]] == [batch.ids for batch in kept]


async def test_a_batch_that_failed_says_so_and_so_does_the_item_that_caused_it(kept: Kept) -> None:
    (bad, worst), (good, sound) = traced(), traced()
    async with running() as batcher:
        results = await asyncio.gather(
            batcher.submit(items(-1), bad), batcher.submit(items(1), good), return_exceptions=True
        )
    assert isinstance(results[0], InferenceFailed)
    assert names(worst) == names(sound) == ["queue", "compute", "compute"]
    assert [(batch.requests, batch.error) for batch in kept if isinstance(batch, Batch)] == [
        (2, "ValueError"),
        (1, "ValueError"),
        (1, ""),
    ]


async def test_a_request_that_nobody_computed_waited(kept: Kept) -> None:
    call, trace = traced()
    async with running() as batcher:
        call.gone = lambda: True
        with pytest.raises(CallerLeft):
            await batcher.submit(items(1), call)
    assert names(trace) == ["queue"]
    assert kept == []


async def test_a_run_at_once_is_a_batch_of_one(kept: Kept) -> None:
    call, trace = traced()
    batcher = Batcher(
        double, LABELS, None, batch_items=4, queue_items=64, item_seconds=1e-6, inline_seconds=1e-3, digest="d1"
    )
    await batcher.start()
    assert batcher.compute_now(items(1), call) is not None
    await batcher.stop()
    [batch] = kept
    assert isinstance(batch, Batch)
    assert batch.served == [trace.ids]
    assert names(trace) == ["compute"]


async def test_without_traces_nothing_is_noted() -> None:
    assert TRACING.tracer is None
    async with running() as batcher:
        await batcher.submit(items(1), Call())
