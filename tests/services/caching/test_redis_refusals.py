"""A Redis that is there and refuses: wrong password, no rights, full, read-only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.caching.redis import RedisTier, RedisUnavailable
from tests.conftest import free_port
from tests.services.caching.redis_faults import (
    PATIENCE,
    TTL,
    RedisServer,
    breaker,
    keep,
    started,
    until,
)

pytestmark = pytest.mark.server


async def test_a_wrong_password_is_unavailable_and_never_logged(
    redis_server: RedisServer, client: Redis, logged: Callable[[], list[str]]
) -> None:
    await client.config_set("requirepass", "right")
    for password, works in (("wrong-secret", False), ("right", True)):
        url = redis_server.url.replace("redis://", f"redis://:{password}@")
        tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
        if works:
            assert await tier.get(["a"]) == {}
        else:
            with pytest.raises(RedisUnavailable):
                await tier.get(["a"])
        await tier.close()
    [line] = logged()
    assert line.startswith("Redis does not answer (AuthenticationError")
    assert "wrong-secret" not in line


async def test_a_user_who_may_not_write_reads(redis_server: RedisServer, client: Redis) -> None:
    await client.set("a", b"1")
    await client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@read"])
    url = redis_server.url.replace("redis://", "redis://reader:secret@")
    tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    await keep(tier, {"a": b"2"})
    assert await tier.get(["a"]) == {"a": b"1"}
    assert breaker("write") == 1
    await tier.close()


async def test_a_replica_that_only_reads_is_read(redis_server: RedisServer, client: Redis, tmp_path: Path) -> None:
    await client.set("a", b"1")
    program = redis_server.process.args[0]
    port = str(free_port())
    url = f"redis://127.0.0.1:{port}/0"
    primary = ["--replicaof", "127.0.0.1", str(redis_server.port)]
    options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), "--dbfilename", "replica.rdb"]
    async with started([program, "--port", port, *options, *primary], url), Redis.from_url(url) as replica:

        async def copied() -> bool:
            with contextlib.suppress(RedisError):  # while it loads
                return bool(await replica.exists("a"))
            return False

        await until(copied)
        tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
        await keep(tier, {"b": b"2"})
        assert await tier.get(["a", "b"]) == {"a": b"1"}
        with pytest.raises(RedisUnavailable):  # so that the replica computes for itself
            await tier.lease(["b"], 1)
        assert (breaker("read"), breaker("write")) == (0, 1)
        await tier.close()
