"""What caches are asked in these tests: the squares of numbers, by a model that can be watched, held and broken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from redis.asyncio import Redis

from services.caching.cache import Cache, CachedOperation
from services.caching.keys import item_keys
from services.caching.redis import RedisTier
from services.caching.values import Layout
from services.call import Call
from services.errors import InferenceFailed
from tests.services.caching.redis_faults import (
    HASTY,
    PATIENCE,
    TTL,
    RedisServer,
    answering,
)

DIGEST = "ab" * 32


@dataclass
class Squares:
    """Squares numbers; remembers its batches, may be held at the gate, and fails on the poison alone."""

    item_seconds: float = 1e-6
    digest: str = DIGEST
    poison: int | None = None
    turns: Callable[[], int] = lambda: 0  # of the event loop that a batch takes
    batches: list[list[int]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        layout = Layout.of(self.run(np.zeros(1, np.int64)))
        self.subject = CachedOperation(self.digest, "square", layout, lambda: self.item_seconds)

    @property
    def computed(self) -> list[int]:
        """All numbers that were ever computed, in order."""
        return sorted(number for batch in self.batches for number in batch)

    def run(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        halves = np.stack([numbers, -numbers], axis=1).astype(np.float32) / 2
        return {"square": numbers**2, "halves": halves}

    def key(self, number: int) -> str:
        return item_keys(self.digest, "square", {"x": np.array([number])}, 1)[0]

    def value(self, number: int) -> bytes:
        return self.subject.layout.encode(self.run(np.array([number])))[0]

    async def ask(self, cache: Cache, *numbers: int, call: Call | None = None) -> list[int]:
        """The squares, by way of a cache."""
        inputs = np.array(numbers)

        async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
            chosen = inputs if rows is None else inputs[rows]
            self.batches.append(chosen.tolist())
            self.entered.set()
            for _ in range(self.turns()):
                await asyncio.sleep(0)
            await self.gate.wait()
            if self.poison in chosen:
                raise InferenceFailed(f"{self.poison} is poison")
            return self.run(chosen)

        outputs = await cache.answer(self.subject, {"x": inputs}, call or Call(), compute)
        for name, array in self.run(inputs).items():
            assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
            assert outputs[name].tobytes() == array.tobytes()
        return list(outputs["square"].tolist())


@pytest.fixture
async def squares() -> Squares:
    return Squares()


@pytest.fixture(scope="session")
def make_squares() -> type[Squares]:
    return Squares


Enqueue = Callable[..., Awaitable[list[asyncio.Task[list[int]]]]]


@pytest.fixture(scope="session")
def enqueue() -> Enqueue:
    """Begin requests in this order, each as far as it gets without waiting."""

    async def begin(squares: Squares, cache: Cache, *requests: Sequence[int]) -> list[asyncio.Task[list[int]]]:
        tasks = [asyncio.create_task(squares.ask(cache, *numbers)) for numbers in requests]
        await asyncio.sleep(0)
        return tasks

    return begin


@pytest.fixture
async def tier(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """One that nobody started: what its breaker leaves alone stays alone."""
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    yield tier
    await tier.close()


@pytest.fixture
async def hasty(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """The same, for a Redis that is going to be frozen."""
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    yield tier
    await tier.close()


@pytest.fixture
async def probing(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """One that tries again every second."""
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    await tier.start()
    await answering(tier, ["a"])
    yield tier
    await tier.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url, protocol=3) as client:
        yield client


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the cache has logged."""
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    return lambda: [record.message for record in caplog.records if record.name == "duet.cache"]
