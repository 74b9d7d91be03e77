"""Work in the thread for bodies and images: few wait, and nobody for longer than is of use."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from services.call import Call
from services.errors import CallerLeft, DeadlineExceeded, QueueFull
from services.scheduling import offload as module
from services.scheduling.offload import Offload


@pytest.fixture
def offload() -> Iterator[Offload]:
    offload = Offload()
    yield offload
    offload.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


async def test_large_work_runs_in_a_thread_and_small_work_here(offload: Offload) -> None:
    here = threading.get_ident()
    assert await offload.run_if_large(threading.get_ident, Call(), 10, 10) == here
    assert await offload.run_if_large(threading.get_ident, Call(), 11, 10) != here


async def test_what_waits_beyond_its_deadline_is_not_begun(offload: Offload, gate: threading.Event) -> None:
    begun = []
    busy = asyncio.create_task(offload.run(gate.wait, Call()))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await offload.run(lambda: begun.append("late"), Call(deadline=time.monotonic() + 0.02))
    gate.set()
    await busy
    await offload.run(lambda: begun.append("next"), Call())
    assert begun == ["next"]


async def test_nothing_is_decoded_for_a_caller_that_left(offload: Offload, gate: threading.Event) -> None:
    left = False
    begun: list[int] = []
    busy = asyncio.create_task(offload.run(gate.wait, Call()))
    await asyncio.sleep(0)
    waits = asyncio.create_task(offload.run(lambda: begun.append(1), Call(gone=lambda: left)))
    await asyncio.sleep(0)
    left = True
    gate.set()
    await busy
    with pytest.raises(CallerLeft):
        await waits
    assert begun == []


async def test_few_requests_may_wait(offload: Offload, gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    waiting = [asyncio.create_task(offload.run(gate.wait, Call())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="2 requests wait for images"):
        await offload.run(gate.wait, Call())
    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await offload.run(lambda: 7, Call()) == 7
