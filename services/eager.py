"""Coroutines that begin at once, in the caller's step of the event loop, without a task.

A task costs three steps of the event loop, about 10 µs. Python 3.12's eager tasks avoid the first; here a coroutine
that awaits futures alone needs one step for each, and becomes a task where it asks for one.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def start(coroutine: Coroutine[Any, Any, T], done: Callable[[T], object], tasks: set[asyncio.Task[Any]]) -> None:
    """Run a coroutine, which must not raise, and hand its result to `done`.

    Args:
        coroutine: what it awaits with a timeout must be behind `in_task`.
        done: called before `start` returns if the coroutine did not have to wait.
        tasks: holds its task while there is one.
    """
    _Run(coroutine, done, tasks).step()


class _Run(Generic[T]):
    """A coroutine on its way."""

    __slots__ = ("_coroutine", "_done", "_tasks")

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T], object], tasks: set[asyncio.Task[Any]]
    ) -> None:
        self._coroutine, self._done, self._tasks = coroutine, done, tasks

    def step(self, _: object = None) -> None:
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self._done(stop.value)
            return
        if getattr(awaited, "_asyncio_future_blocking", None):  # as `asyncio.Task` does: a future that is awaited
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(self.step)
            return
        task = asyncio.get_running_loop().create_task(_rest(self._coroutine, awaited))
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._done(task.result())


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """The steps of a coroutine that has begun and waits for `awaited`."""
    try:
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # the coroutine learns it as it would from its own task
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(sent)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def in_task() -> None:
    """Return inside a task, which timeouts need: a coroutine that began eagerly becomes one."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)
