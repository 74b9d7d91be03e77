"""`duet cache`: what Redis holds of Duet, and flushing it by model. SCAN and UNLINK only: Redis may have others."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import typer
from pydantic import ValidationError
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, RedisClusterException, RedisError
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from services.caching.connect import Client, connect, hang_up
from services.caching.keys import PREFIX, SCHEMA
from services.caching.redis import LEASE
from services.commands.models import explained
from services.commands.stop import stop
from services.inference import registry
from services.inference.bundle import BundleError
from services.inference.registry import Entry
from services.settings import Settings

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    help="See and empty the cache in Redis; DUET_REDIS_URL says where it is.\n\n"
    "Nothing ever has to be flushed for the sake of right answers: keys hold the digest of the bundle that answered, "
    "so a retrained model never meets the answers of the one before, and entries expire after "
    "DUET_CACHE_TTL_SECONDS. Flushing gives memory back sooner. Running processes also keep answers in their own "
    "memory, which this does not touch; that ends with the process.",
)

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


@app.command()
def stats(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """What Redis holds of every model, and how Redis itself fares.

    Bytes are what Redis spends on keys, values and their bookkeeping: MEMORY USAGE of every key.

    "No stored bundle" means none in the store of this machine (BENTOML_HOME); another may serve it.
    """
    with explained():
        stored = registry.entries()

    async def ask(client: Client) -> tuple[dict[str, Any], dict[Space, Held]]:
        servers = {name: await _within(server.execute_command("INFO")) for name, server in _servers(client).items()}
        return servers, await _held(client)

    servers, spaces = _run(ask)
    numbers = [{"server": name} | _numbers(info) for name, info in servers.items()]
    rows = [
        {"schema": space.schema, "digest": space.digest, "model": _owner(space, stored), **vars(held)}
        for space, held in sorted(spaces.items())
    ]
    if as_json:
        print(json.dumps({"servers": numbers, "namespaces": rows}))  # noqa: T201  # not a table for people
        return
    table = Table("model", "digest", "entries", "leases", "bytes")
    for space, held in sorted(spaces.items(), key=lambda pair: -pair[1].bytes):
        owner = _owner(space, stored) or _stranger(space)
        table.add_row(escape(owner), space.digest, f"{held.entries:,}", f"{held.leases:,}", f"{held.bytes:,}")
    Console().print(table if table.row_count else "Redis holds nothing of Duet.")
    for each in numbers:
        limit = decimal(each["maxmemory"]) if each["maxmemory"] else "no limit"
        memory = f"{decimal(each['used_memory'])} of {limit}, {each['policy']}, {each['evictions']:,} evictions"
        asked = f"{each['hits']:,} hits, {each['misses']:,} misses (of all its users)"
        line = f"{each['server']} {each['version']}: {memory}, {asked}"
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if any(each["policy"] == "noeviction" for each in numbers):
        words = "a full Redis refuses new answers instead of dropping old ones: maxmemory-policy allkeys-lru drops them"
        Console(stderr=True).print(f"[yellow]warning:[/] policy noeviction: {words}", soft_wrap=True, highlight=False)


@app.command()
def flush(
    model: Annotated[
        str | None, typer.Option(help="Answers of NAME (every stored version) or NAME:VERSION, by their digests.")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Answers of bundles that are not in the store, and of older releases.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All keys of Duet (and nothing else).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and remove nothing.")] = False,
) -> None:
    """Remove answers from Redis: exactly one of --model, --stale and --all.

    Services go on answering meanwhile: what was removed is computed again when somebody asks for it.

    Running processes keep what is in their own memory. Keys of other users of the same Redis are never touched.
    """
    if (model is not None) + stale + everything != 1:
        raise typer.BadParameter("give exactly one of --model, --stale and --all")
    with explained():
        chosen = _chosen(model, stale)

    async def sweep(client: Client) -> int:
        removed = 0
        async for names in _names(client):
            doomed = [name for name in names if chosen(_space(name))]
            removed += len(doomed) if dry_run else sum(await _each(client, "UNLINK", doomed))
        return removed

    removed = _run(sweep)
    Console().print(f"{'would remove' if dry_run else 'removed'} {removed:,} keys", highlight=False)


def _chosen(model: str | None, stale: bool) -> Callable[[Space], bool]:
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
    return lambda space: bool(space.digest) and space.schema <= SCHEMA and _owner(space, stored) is None


def _space(name: bytes) -> Space:
    found = KEY.match(name)
    return Space(int(found[1]), found[2].decode()) if found else Space(SCHEMA, "")


def _owner(space: Space, stored: Sequence[Entry]) -> str | None:
    """The stored bundle whose answers a namespace holds; a version begins its bundle's digest."""
    if space.schema != SCHEMA or not space.digest:
        return None
    return next((entry.tag for entry in stored if space.digest.startswith(entry.version)), None)


def _stranger(space: Space) -> str:
    if not space.digest:
        return "(no answers: probes)"
    if space.schema == SCHEMA:
        return "(no stored bundle)"
    return f"({'an older' if space.schema < SCHEMA else 'a newer'} release: schema {space.schema})"


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": info.get("redis_version", "?"),
        "used_memory": info.get("used_memory", 0),
        "maxmemory": info.get("maxmemory", 0),
        "policy": info.get("maxmemory_policy", "?"),
        "evictions": info.get("evicted_keys", 0),
        "hits": info.get("keyspace_hits", 0),
        "misses": info.get("keyspace_misses", 0),
    }


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

    try:
        url = Settings().redis_url.get_secret_value()
        if not url:
            raise ValueError("it is empty; set it as for the services, to redis://host:port/db for example")
        return asyncio.run(connected())
    except ValidationError as error:  # of all settings; quotes no value
        reason = "; ".join(f"DUET_{str(part['loc'][0]).upper()}: {part['msg']}" for part in error.errors())
    except ValueError as error:
        reason = f"DUET_REDIS_URL cannot be used: {error}"
    except NoPermissionError as error:
        reason = f"Redis refuses: {error}; beside what services need, this needs {NEEDED}"
    except TimeoutError:
        reason = f"Redis (DUET_REDIS_URL) does not answer within {SECONDS:g} s"
    except (RedisError, RedisClusterException, OSError) as error:
        reason = f"Redis (DUET_REDIS_URL) does not answer: {error}"
    return stop(reason)
