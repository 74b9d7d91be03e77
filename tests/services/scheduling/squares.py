"""A computation that a test can hold, watch and break, and the batcher around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
from prometheus_client import REGISTRY

from services.call import Call
from services.scheduling.batcher import Batcher
from services.scheduling.job import Job
from services.telemetry import metrics

LABELS = ("tested", "1", "square")


class Square:
    """Squares its items; remembers the batches, may be held at the gate, fails on poisonous items."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.poison = poison

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        items = inputs["x"].tolist()
        self.batches.append(items)
        self.entered.set()
        assert self.gate.wait(30)
        if self.poison in items:
            raise RuntimeError("poison")
        return {"y": inputs["x"] ** 2, "twice": np.stack([inputs["x"]] * 2, axis=1)}

    async def held(self) -> None:
        """Until a batch is inside."""
        assert await asyncio.to_thread(self.entered.wait, 30)


@asynccontextmanager
async def running(
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]],
    *,
    batch_items: int = 8,
    queue_items: int = 1024,
    batch_bytes: int = 2**20,
    item_seconds: float = 0.0,
    inline: bool = False,
) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(
            run,
            LABELS,
            None if inline else executor,
            batch_items=batch_items,
            queue_items=queue_items,
            batch_bytes=batch_bytes,
            item_seconds=item_seconds,
        )
        await batcher.start()
        try:
            yield batcher
        finally:
            await batcher.stop()


def items(*values: int) -> dict[str, np.ndarray]:
    return {"x": np.array(values)}


def squares(job: Job) -> list[int]:
    return list(job.outputs["y"].tolist())


def waiting() -> float:
    value = REGISTRY.get_sample_value(
        "duet_queue_items", dict(zip(("model", "version", "operation"), LABELS, strict=True))
    )
    assert value is not None
    return value


def abandoned(reason: str) -> float:
    return metrics.ABANDONED.labels(LABELS[0], reason).count


def wasted(reason: str) -> float:
    return metrics.WASTED.labels(LABELS[0], reason).count


def ask(batcher: Batcher, *values: int, deadline: float | None = None) -> asyncio.Task[Job]:
    return asyncio.create_task(batcher.submit(items(*values), Call(deadline=deadline)))


async def enqueued(batcher: Batcher, *requests: tuple[int, ...]) -> list[asyncio.Task[Job]]:
    """Submit requests in this order and let them enter the queue."""
    tasks = [ask(batcher, *values) for values in requests]
    await asyncio.sleep(0)
    return tasks
