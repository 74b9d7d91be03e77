"""`duet cache`: what Redis holds of Duet, and removing it by model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from services.commands.examples import examples
from services.commands.stop import Commands

# `duet --help` does without the clients of Redis: each command imports them when it runs.
# ruff: noqa: PLC0415

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Show and remove the answers that Redis holds. DUET_REDIS_URL names the Redis.\n\n"
    "Answers are never wrong without a flush: each key holds the digest of the bundle that answered, and an entry "
    "expires after DUET_CACHE_TTL_SECONDS. A flush frees memory sooner. It does not touch the answers that a running "
    "process keeps in its own memory; those go when the process ends.",
    epilog=examples("duet cache stats", "duet cache flush --stale"),
)


@app.command(epilog=examples("duet cache stats", "DUET_REDIS_URL=redis://localhost:6379/0 duet cache stats --json"))
def stats(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show the answers of each model in Redis, and the memory, hits and evictions of Redis.

    Bytes are what Redis needs for keys, values and bookkeeping (MEMORY USAGE of each key).

    "No stored bundle" means none in the store of this machine (BENTOML_HOME). Another machine may serve it.
    """
    from services.commands import held
    from services.inference import registry

    stored = registry.entries()
    servers, spaces = held.survey()
    numbers = [{"server": name} | _numbers(info) for name, info in servers.items()]
    rows = [
        {"schema": space.schema, "digest": space.digest, "model": held.owner(space, stored), **vars(kept)}
        for space, kept in sorted(spaces.items())
    ]
    if as_json:
        print(json.dumps({"servers": numbers, "namespaces": rows}))  # noqa: T201  # not a table for people
        return
    table = Table("model", "digest", "entries", "leases", "bytes")
    for space, kept in sorted(spaces.items(), key=lambda pair: -pair[1].bytes):
        owner = held.owner(space, stored) or held.stranger(space)
        table.add_row(escape(owner), space.digest, f"{kept.entries:,}", f"{kept.leases:,}", f"{kept.bytes:,}")
    Console().print(table if table.row_count else "Redis holds nothing of Duet.")
    for each in numbers:
        limit = decimal(each["maxmemory"]) if each["maxmemory"] else "no limit"
        memory = f"{decimal(each['used_memory'])} of {limit}, {each['policy']}, {each['evictions']:,} evictions"
        asked = f"{each['hits']:,} hits, {each['misses']:,} misses (of all its users)"
        line = f"{each['server']} {each['version']}: {memory}, {asked}"
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    if any(each["policy"] == "noeviction" for each in numbers):
        words = "a full Redis refuses new answers; set maxmemory-policy to allkeys-lru, and it drops old ones instead"
        Console(stderr=True).print(f"[yellow]warning:[/] policy noeviction: {words}", soft_wrap=True, highlight=False)


@app.command(epilog=examples("duet cache flush --model digits-cnn --dry-run", "duet cache flush --stale"))
def flush(
    model: Annotated[
        str | None, typer.Option(help="Remove the answers of NAME (every stored version) or NAME:VERSION.")
    ] = None,
    stale: Annotated[
        bool,
        typer.Option("--stale", help="Remove the answers of bundles that are not in the store, and of older releases."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all keys of Duet. Keys of other programs stay.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the keys, and remove none.")] = False,
) -> None:
    """Remove answers from Redis. Give exactly one of --model, --stale and --all.

    Services answer meanwhile, and compute what was removed when it is asked for again. Running processes keep the
    answers in their own memory.
    """
    from services.commands import held

    if (model is not None) + stale + everything != 1:
        raise typer.BadParameter("give exactly one of --model, --stale and --all")
    removed = held.remove(held.choice(model, stale), dry_run=dry_run)
    Console().print(f"{'would remove' if dry_run else 'removed'} {removed:,} keys", highlight=False)


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
