"""A lease in Redis is removed by its owner only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from services.caching.redis import LEASE, RedisTier
from tests.services.caching.test_lease import LONG, replica

pytestmark = pytest.mark.server


@pytest.fixture
async def two(redis_server: Any) -> AsyncIterator[tuple[RedisTier, RedisTier]]:
    async with replica(redis_server) as one, replica(redis_server) as other:
        yield one, other


@pytest.fixture
async def client(redis_server: Any) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


async def test_a_holder_whose_lease_expired_does_not_remove_its_successors(
    two: tuple[RedisTier, RedisTier], client: Redis
) -> None:
    one, other = two
    assert (await one.lease(["a"], 0.05))[0] == {"a"}
    for _ in range(200):
        if (await other.lease(["a"], LONG))[0] == {"a"}:
            break
        await asyncio.sleep(0.02)
    token = await client.get("a" + LEASE)
    one.keep({"a": b"late"}, leased=["a"])
    await asyncio.gather(*one._pending)
    assert await client.get("a") == b"late"
    assert await client.get("a" + LEASE) == token is not None
    other.keep({}, leased=["a"])
    await asyncio.gather(*other._pending)
    assert await client.get("a" + LEASE) is None


async def test_a_lease_that_may_have_expired_and_was_not_taken_since_is_removed(
    two: tuple[RedisTier, RedisTier], client: Redis
) -> None:
    one, _ = two
    await one.lease(["a"], LONG)
    [(key, (token, _))] = one._leases.items()
    one._leases[key] = token, time.monotonic()
    one.keep({}, leased=["a"])
    await asyncio.gather(*one._pending)
    assert await client.get("a" + LEASE) is None
