"""What Redis holds of Duet, by bundle. SCAN and UNLINK only: Redis may have other users."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, RedisClusterException, RedisError
from rich.console import Console
from rich.progress import Progress

from services.caching.connect import Client, connect, hang_up
from services.caching.keys import PREFIX, SCHEMA
from services.caching.redis import LEASE
from services.commands.stop import stop
from services.inference import registry
from services.inference.bundle import BundleError
from services.inference.registry import Entry
from services.settings import read

T = TypeVar("T")

SECONDS = 10.0  # for one answer of Redis
COUNT = 1000  # keys that one SCAN looks at: about a millisecond of Redis's time
NEEDED = "+scan +dbsize +info +memory|usage +unlink"  # beside what the services need
KEY = re.compile(rb"%b:(\d+):([0-9a-f]+):" % PREFIX.encode())


class Space(NamedTuple):
    """A namespace of keys: one release's answers of one bundle."""

    schema: int
    digest: str  # the first digits of the bundle's; empty for keys that are no answers


@dataclass
class Held:
    """What is in a namespace."""

    entries: int = 0
    leases: int = 0
    bytes: int = 0


def survey() -> tuple[dict[str, dict[str, Any]], dict[Space, Held]]:
    """INFO of every server, by name, and what is in every namespace."""

    async def ask(client: Client) -> tuple[dict[str, Any], dict[Space, Held]]:
        servers = {name: await _within(server.execute_command("INFO")) for name, server in _servers(client).items()}
        return servers, await _held(client)

    return _run(ask)


def remove(chosen: Callable[[Space], bool], *, dry_run: bool) -> int:
    """Remove the keys of the namespaces that are `chosen`, or only count them; returns how many."""

    async def sweep(client: Client) -> int:
        removed = 0
        async for names in _names(client):
            doomed = [name for name in names if chosen(_space(name))]
            removed += len(doomed) if dry_run else sum(await _each(client, "UNLINK", doomed))
        return removed

    return _run(sweep)


def choice(model: str | None, stale: bool) -> Callable[[Space], bool]:
    """Which namespaces to flush."""
    if model is None and not stale:
        return lambda space: True
    stored = registry.entries()
    if model is not None:
        of_name = [entry for entry in stored if entry.name == model]
        try:
            entries = of_name or [registry.find(model, stored)]
        except BundleError as error:
            raise BundleError(f"{error}; answers of bundles that were deleted go with --stale") from None
        return lambda space: any(space.digest.startswith(entry.version) for entry in entries)
    if not stored:
        raise BundleError("the store is empty, so every answer would count as stale: say --all if that is meant")
    return lambda space: bool(space.digest) and space.schema <= SCHEMA and owner(space, stored) is None


def _space(name: bytes) -> Space:
    found = KEY.match(name)
    return Space(int(found[1]), found[2].decode()) if found else Space(SCHEMA, "")


def owner(space: Space, stored: Sequence[Entry]) -> str | None:
    """The stored bundle whose answers a namespace holds; a version begins its bundle's digest."""
    if space.schema != SCHEMA or not space.digest:
        return None
    return next((entry.tag for entry in stored if space.digest.startswith(entry.version)), None)


def stranger(space: Space) -> str:
    if not space.digest:
        return "(no answers: probes)"
    if space.schema == SCHEMA:
        return "(no stored bundle)"
    return f"({'an older' if space.schema < SCHEMA else 'a newer'} release: schema {space.schema})"


async def _held(client: Client) -> dict[Space, Held]:
    spaces: dict[Space, Held] = defaultdict(Held)
    async for names in _names(client):
        for name, size in zip(names, await _each(client, "MEMORY USAGE", names), strict=True):
            if size is None:
                continue  # it expired meanwhile
            held = spaces[_space(name)]
            held.bytes += size
            if name.endswith(LEASE.encode()):
                held.leases += 1
            else:
                held.entries += 1
    return spaces


def _servers(client: Client) -> dict[str, Any]:
    """Every server that holds keys of its own, by name; each executes commands."""
    if isinstance(client, RedisCluster):
        return {node.name: node for node in client.get_primaries()}
    return {"Redis": client}


async def _names(client: Client) -> AsyncIterator[list[bytes]]:
    """All keys of Duet, some at a time."""
    servers = list(_servers(client).values())
    total = sum([await _within(server.execute_command("DBSIZE")) for server in servers])
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scanning", total=total)
        for server in servers:
            cursor = None
            while cursor != 0:
                scan = server.execute_command("SCAN", cursor or 0, "MATCH", f"{PREFIX}:*", "COUNT", COUNT)
                cursor, names = await _within(scan)
                bar.advance(task, COUNT)
                yield names


async def _each(client: Client, command: str, names: Sequence[bytes]) -> list[Any]:
    """The answers to one command for each key; a cluster's pipeline finds each key's server."""
    if not names:
        return []
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.execute_command(command, name)
    return await _within(pipeline.execute())


async def _within(answer: Awaitable[T]) -> T:
    return await asyncio.wait_for(answer, SECONDS)


def _run(work: Callable[[Client], Coroutine[None, None, T]]) -> T:
    """Do something with Redis, or end with a message and status 1."""

    async def connected() -> T:
        client = connect(url, SECONDS / 2)
        try:
            await _within(client.initialize())
            return await work(client)
        finally:
            await hang_up(client)

    url = read().redis_url.get_secret_value()
    if not url:
        stop("DUET_REDIS_URL is empty; set it to the Redis of the services, for example redis://host:port/db")
    try:
        return asyncio.run(connected())
    except ValueError as error:
        reason = f"DUET_REDIS_URL cannot be used: {error}"
    except NoPermissionError as error:
        reason = f"Redis refuses: {error}; beside what services need, this needs {NEEDED}"
    except TimeoutError:
        reason = f"Redis (DUET_REDIS_URL) does not answer within {SECONDS:g} s; check that it runs"
    except (RedisError, RedisClusterException, OSError) as error:
        reason = f"Redis (DUET_REDIS_URL) does not answer: {error}; check the address, and that it runs"
    return stop(reason)
