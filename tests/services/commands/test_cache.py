"""`duet cache` on real Redis servers that hold a hundred thousand keys of Duet and as many of others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.cluster import RedisCluster
from typer.testing import CliRunner, Result

from services.caching.keys import SCHEMA, namespace
from services.caching.redis import LEASE, PROBE_KEY
from services.commands.cache import app
from services.commands.held import NEEDED
from services.inference import registry
from services.inference.bundle import Bundle

MakeBundle = Callable[..., Bundle]
# Of the conftest.
Server = Any
Replicated = Any
StartRedis = Callable[..., Server]

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("empty_store")]

NOBODY = "abcdef0123456789"  # the digest of no bundle
FOREIGN = {"other": b"1", "due": b"2", "duets:2:x": b"3", "my:duet:2:y": b"4"}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def server(start_redis: StartRedis, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = start_redis()
    monkeypatch.setenv("DUET_REDIS_URL", f"redis://127.0.0.1:{server.port}/0")
    return server


def duet_cache(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def removed(*arguments: str) -> int:
    result = duet_cache("flush", *arguments)
    assert result.exit_code == 0, result.stderr
    [count] = re.findall(r"removed? ([\d,]+) keys", result.stdout)
    return int(count.replace(",", ""))


def fill(client: Any, space: str, count: int, value: bytes = b"an answer") -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(count):
        pipeline.set(f"{space}{number:040x}", value)
    pipeline.execute()


def counted(client: Redis) -> dict[str, int]:
    """Keys by namespace, without `duet cache`."""
    counts: dict[str, int] = {}
    for key in client.scan_iter(count=10_000):
        space = re.sub(r"[0-9a-f]{40}(:lease)?$", "", key)
        counts[space] = counts.get(space, 0) + 1
    return counts


def test_stats_shows_every_namespace_its_model_and_the_server(make_bundle: MakeBundle, server: Server) -> None:
    bundle = make_bundle()
    entry = registry.store(bundle)
    client = server.admin()
    client.config_set("maxmemory", "64mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    fill(client, namespace(bundle.digest), 3000)
    client.set(f"{namespace(bundle.digest)}{0:040x}{LEASE}", "")
    fill(client, namespace(NOBODY), 20)
    fill(client, f"duet:{SCHEMA - 1}:{NOBODY}:", 7)
    fill(client, f"duet:{SCHEMA + 1}:{NOBODY}:", 5)
    client.set(PROBE_KEY, "")
    client.mset(FOREIGN)
    client.get("nothing")

    told = json.loads(duet_cache("stats", "--json").stdout)
    [mine] = [space for space in told["namespaces"] if space["model"] == entry.tag]
    assert (mine["digest"], mine["entries"], mine["leases"]) == (bundle.digest[:16], 3000, 1)
    keys = list(client.scan_iter(f"{namespace(bundle.digest)}*"))
    assert mine["bytes"] == sum(client.memory_usage(key) for key in keys)
    others = {(s["schema"], s["digest"]): s["entries"] for s in told["namespaces"] if s["model"] is None}
    assert others == {(SCHEMA, NOBODY): 20, (SCHEMA - 1, NOBODY): 7, (SCHEMA + 1, NOBODY): 5, (SCHEMA, ""): 1}
    [redis] = told["servers"]
    info = client.info()
    assert (redis["version"], redis["maxmemory"], redis["policy"]) == (info["redis_version"], 64 * 2**20, "allkeys-lru")
    assert (redis["hits"], redis["misses"], redis["evictions"]) == (info["keyspace_hits"], 1, 0)
    assert redis["used_memory"] > mine["bytes"]

    shown = duet_cache("stats")
    assert "warning" not in shown.stderr
    for line in (entry.tag, "no stored bundle", "an older release: schema", "a newer release: schema", "allkeys-lru"):
        assert line in shown.stdout
    assert "other" not in shown.stdout.replace("older", "")


def test_stats_warns_of_a_redis_that_will_refuse(server: Server) -> None:
    server.admin().config_set("maxmemory-policy", "noeviction")
    result = duet_cache("stats")
    assert result.exit_code == 0
    assert "Redis holds nothing of Duet" in result.stdout
    assert "noeviction" in result.stderr
    assert "allkeys-lru" in result.stderr


@pytest.mark.slow
def test_a_hundred_thousand_keys_are_flushed_by_namespace_and_others_survive(
    make_bundle: MakeBundle, server: Server
) -> None:
    bundles = [make_bundle("old"), make_bundle("new", weight=2), make_bundle("else", name="elsewhere", weight=3)]
    old, new, elsewhere = (registry.store(bundle) for bundle in bundles)
    mine = [namespace(bundle.digest) for bundle in bundles]
    client = server.admin()
    for space in mine:
        fill(client, space, 25_000)
    fill(client, namespace(NOBODY), 24_000)
    fill(client, f"duet:{SCHEMA - 1}:{bundles[1].digest[:16]}:", 1000)
    fill(client, f"duet:{SCHEMA + 1}:{NOBODY}:", 10)
    fill(client, "foreign:", 100_000)
    client.mset(FOREIGN)
    before = counted(client)
    assert sum(before.values()) == 200_010 + len(FOREIGN)

    assert removed("--model", old.tag, "--dry-run") == 25_000
    assert counted(client) == before
    assert removed("--model", old.tag) == 25_000
    assert removed("--stale") == 25_000
    assert counted(client) == {
        mine[1]: 25_000,
        mine[2]: 25_000,
        f"duet:{SCHEMA + 1}:{NOBODY}:": 10,
        "foreign:": 100_000,
        **dict.fromkeys(FOREIGN, 1),
    }
    assert removed("--model", new.name) == 25_000  # of both its versions
    assert removed("--all") == 25_010
    assert counted(client) == {"foreign:": 100_000, **dict.fromkeys(FOREIGN, 1)}
    assert client.mget(list(FOREIGN)) == [value.decode() for value in FOREIGN.values()]
    assert removed("--all") == 0
    assert elsewhere.tag not in duet_cache("stats").stdout


def test_only_commands_that_leave_others_alone_are_sent(make_bundle: MakeBundle, server: Server) -> None:
    bundle = make_bundle()
    registry.store(bundle)
    client = server.admin()
    fill(client, namespace(bundle.digest), 3000)
    client.config_resetstat()
    duet_cache("stats")
    removed("--all")
    sent = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert sent - {"hello", "select", "info", "config|resetstat"} == {"scan", "dbsize", "memory|usage", "unlink"}


def test_the_rights_that_it_names_are_those_it_needs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = server.admin()
    fill(client, namespace(NOBODY), 10)
    rights = NEEDED.split()
    everyone = ["ACL", "SETUSER", "operator", "reset", "on", ">secret", "~duet:*"]
    monkeypatch.setenv("DUET_REDIS_URL", f"redis://operator:secret@127.0.0.1:{server.port}")
    for missing in [*rights, None]:
        client.execute_command(*everyone, *[right for right in rights if right != missing])
        results = [duet_cache("stats"), duet_cache("flush", "--all")]
        if missing is None:
            assert [result.exit_code for result in results] == [0, 0]
        else:
            [refused, *_] = [result for result in results if result.exit_code]
            assert missing in refused.stderr
            assert "secret" not in refused.stderr
        fill(client, namespace(NOBODY), 10)


@pytest.mark.slow
def test_sentinels_lead_to_the_primary(replicated: Replicated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", replicated.url)
    fill(replicated.primary.admin(), namespace(NOBODY), 1500)
    told = json.loads(duet_cache("stats", "--json").stdout)
    assert [space["entries"] for space in told["namespaces"]] == [1500]
    assert removed("--all") == 1500
    assert replicated.primary.admin().dbsize() == 0


@pytest.mark.slow
def test_a_cluster_is_walked_node_by_node(cluster: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", f"redis+cluster://127.0.0.1:{cluster[0].port}")
    with RedisCluster(port=cluster[0].port, host="127.0.0.1") as client:
        for number in range(3000):
            client.set(f"{namespace(NOBODY)}{number:040x}", b"an answer")
        client.set("other", b"1")
    told = json.loads(duet_cache("stats", "--json").stdout)
    assert [space["entries"] for space in told["namespaces"]] == [3000]
    assert {one["server"] for one in told["servers"]} == {f"127.0.0.1:{server.port}" for server in cluster[:3]}
    assert removed("--all") == 3000
    assert sum(server.admin().dbsize() for server in cluster[:3]) == 1


def test_exactly_one_choice_is_made(server: Server) -> None:
    for arguments in ([], ["--all", "--stale"], ["--model", "a", "--all"]):
        result = duet_cache("flush", *arguments)
        assert result.exit_code == 2
        assert "exactly one of" in result.stderr


def test_a_model_that_is_not_in_the_store_is_an_error(make_bundle: MakeBundle, server: Server) -> None:
    registry.store(make_bundle())
    fill(server.admin(), namespace(NOBODY), 5)
    for tag in ("other", f"tiny-linear:{NOBODY[:12]}"):
        result = duet_cache("flush", "--model", tag)
        assert result.exit_code == 1
        assert "is not in the store" in result.stderr
        assert "--stale" in result.stderr
    assert server.admin().dbsize() == 5


def test_an_empty_store_makes_nothing_stale(server: Server) -> None:
    fill(server.admin(), namespace(NOBODY), 5)
    result = duet_cache("flush", "--stale")
    assert result.exit_code == 1
    assert "--all" in result.stderr
    assert server.admin().dbsize() == 5


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "DUET_REDIS_URL is empty"),
        ("redis://user:secret@127.0.0.1:1/0", "does not answer: Error .* connecting to 127.0.0.1:1"),
        ("redis+cluster://user:secret@127.0.0.1:1", "does not answer"),
        ("redis+sentinel://user:secret@127.0.0.1:1/duet", "does not answer"),
        ("redis://user:secret/@127.0.0.1", "percent-encode"),
        ("http://user:secret@host", "DUET_REDIS_URL: .*begin with one of"),
    ],
)
@pytest.mark.parametrize("arguments", [["stats"], ["flush", "--all"]], ids=" ".join)
def test_without_redis_it_says_why(
    url: str, reason: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", url)
    result = duet_cache(*arguments)
    assert result.exit_code == 1
    assert re.search(reason, result.stderr)
    assert "secret" not in result.stderr
