"""Coroutines that begin at once: what they wait for, and what they see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from services.eager import in_task, start


class Ran:
    """The results of coroutines that were started, and their tasks."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        start(coroutine, self.results.append, self.tasks)

    async def start_outside(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """As a transport does: from a callback of the event loop, which is no task."""
        asyncio.get_running_loop().call_soon(self.start, coroutine)
        await asyncio.sleep(0)

    async def finished(self) -> list[Any]:
        async with asyncio.timeout(10):
            while not self.results:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return self.results


@pytest.fixture
def ran() -> Ran:
    return Ran()


async def test_without_waiting_the_result_is_there_at_once(ran: Ran) -> None:
    async def inner() -> int:
        return 1

    async def outer() -> int:
        return await inner() + await inner()

    ran.start(outer())
    assert ran.results == [2]
    assert not ran.tasks


async def test_futures_are_awaited_without_a_task(ran: Ran) -> None:
    first, second = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()

    async def work() -> list[Any]:
        found = [await first]
        try:
            await second
        except KeyError as error:
            found.append(error.args[0])
        return found

    ran.start(work())
    first.set_result("a")
    await asyncio.sleep(0)
    assert not ran.results
    second.set_exception(KeyError("b"))
    assert await ran.finished() == [["a", "b"]]
    assert not ran.tasks


async def test_a_future_that_is_done_does_not_wait(ran: Ran) -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result(7)

    async def work() -> int:
        return int(await done)

    ran.start(work())
    assert ran.results == [7]


async def test_a_cancelled_future_is_seen(ran: Ran) -> None:
    future = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await future
        except asyncio.CancelledError:
            return "cancelled"
        return "not"

    ran.start(work())
    future.cancel()
    assert await ran.finished() == ["cancelled"]


async def test_a_timeout_needs_a_task_and_gets_one(ran: Ran) -> None:
    async def work() -> str:
        await in_task()
        assert asyncio.current_task() is not None
        try:
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "late"
        return "in time"

    await ran.start_outside(work())
    assert not ran.results
    assert len(ran.tasks) == 1
    assert await ran.finished() == ["late"]
    assert not ran.tasks


async def test_in_a_task_nothing_is_awaited() -> None:
    coroutine = in_task()
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_a_cancelled_task_ends_without_a_result(ran: Ran) -> None:
    ended = []

    async def work() -> str:
        await in_task()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)
        return "never"

    await ran.start_outside(work())
    (task,) = ran.tasks
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (ended, ran.results, ran.tasks) == ([True], [], set())
