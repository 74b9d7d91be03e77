"""The virtual loop has the meaning of asyncio's, with time that only work and waiting take."""

import asyncio
import time

import pytest

from loadtests.capacity.loop import VirtualLoop, virtual_time
from services.call import Call
from services.scheduling import batcher


def test_time_jumps_to_timers_and_passes_with_work() -> None:
    loop = VirtualLoop()

    async def work() -> list[float]:
        await asyncio.sleep(10)
        seen = [loop.time()]
        loop.charge(0.5)
        seen.append(loop.time())
        await asyncio.sleep(1)
        return [*seen, loop.time()]

    begin = time.monotonic()
    assert loop.complete(work()) == pytest.approx([10, 10.5, 11.5])
    assert time.monotonic() - begin < 1
    assert loop.busy == pytest.approx(0.5)


def test_what_arrives_during_work_waits_for_the_next_turn() -> None:
    loop = VirtualLoop()
    read: list[tuple[str, float]] = []

    def reading(name: str) -> None:
        loop.charge(1.0)
        read.append((name, loop.time()))

    for name, when in (("a", 2.0), ("b", 2.5), ("c", 9.0)):
        loop.arrive(when, lambda name=name: reading(name))  # type: ignore[misc]
    loop.step()
    assert read == [("a", 3.0)]
    loop.run_until(20)
    assert read == [("a", 3.0), ("b", 4.0), ("c", 10.0)]


def test_the_compute_thread_stands_still_while_the_loop_works() -> None:
    loop = VirtualLoop()

    async def compute() -> float:
        computing = asyncio.get_running_loop().run_in_executor(None, loop.charge, 2.0)
        await asyncio.sleep(1)
        loop.charge(0.5)
        await computing
        return loop.time()

    assert loop.complete(compute()) == pytest.approx(2.5)


def test_timeouts_tasks_and_cancelled_timers_work() -> None:
    loop = VirtualLoop()

    async def waiting() -> float:
        loop.call_later(100, pytest.fail).cancel()
        sleeping = asyncio.create_task(asyncio.sleep(50))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await sleeping
        return loop.time()

    assert loop.complete(waiting()) == pytest.approx(3)
    with pytest.raises(RuntimeError, match="nothing is due"):
        loop.complete(_forever())


async def _forever() -> None:
    await asyncio.Event().wait()


def test_a_deadline_is_of_the_loop_that_runs_and_the_real_clock_comes_back() -> None:
    async def expired() -> list[bool]:
        call = Call(deadline=5.0)
        before = call.expired
        await asyncio.sleep(6)
        return [before, call.expired]

    with virtual_time():
        assert VirtualLoop().complete(expired()) == [False, True]
        assert VirtualLoop().complete(expired()) == [False, True]
    assert batcher.time is time


def test_an_error_in_a_callback_is_raised() -> None:
    loop = VirtualLoop()
    loop.call_soon(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="Exception in callback"):
        loop.step()
