"""Every kind of Redis, for real: sockets, passwords, TLS, Sentinels that fail over, clusters that lose a node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from services.caching.connect import connect, hang_up
from services.caching.redis import PROBE_SECONDS, RedisTier, RedisUnavailable

# Of the conftest.
Server = Any
Replicated = Any
StartRedis = Callable[..., Server]

pytestmark = pytest.mark.server

TIMEOUT = 1.0  # long enough for a loaded test machine
CLUSTER_ACL = ["+ping", "+command", "+cluster|slots"]
BAD = [
    "http://secret",
    "redis://user:12/secret@host/0",
    "redis://user:12#secret@host",
    "redis://user:12?secret@host",
    "redis://user:se:cret/secret@host",
    "redis://host:secret",
    "redis://host/secret",
    "redis://host?secret",
    "redis://host?secret=1",
    "redis://host?socket_timeout=secret",
    "redis://host?ssl_ca_certs=secret",
    "rediss://host?ssl_cert_reqs=secret",
    "unix://secret",
    "redis+sentinel://user:secret@host",
    "redis+sentinel://host/duet/secret",
    "redis+sentinel://host:secret/duet",
    "redis+sentinel://host/duet?secret=1",
    "redis+cluster://user:secret@",
    "redis+cluster://host:secret",
    "redis+cluster://user:secret@host/3",
    "redis+cluster://host?secret=1",
]
KEYS = [f"duet:3:{'0' * 16}:{number:040x}" for number in range(300)]  # enough for every node of a cluster
VALUES = dict.fromkeys(KEYS, b"a value")


@contextlib.asynccontextmanager
async def tier_on(url: str) -> AsyncIterator[RedisTier]:
    tier = RedisTier(url, timeout_seconds=TIMEOUT, ttl_seconds=1000)
    await tier.start()
    try:
        yield tier
    finally:
        await tier.close()


async def holds(tier: RedisTier, expected: dict[str, bytes]) -> None:
    """Writes come behind the answer: wait for them."""
    end = time.monotonic() + 30
    while await tier.get(KEYS) != expected:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def everything(tier: RedisTier) -> None:
    """All that Duet ever asks of Redis."""
    assert await tier.get(KEYS) == {}
    assert await tier.lease(KEYS, 60) == (set(KEYS), {})
    assert await tier.lease(KEYS, 60) == (set(), {})
    tier.keep(VALUES, leased=KEYS)
    await holds(tier, VALUES)
    ours, there = await tier.lease(KEYS, 60)  # which ended when the values were there, in the same pipeline
    assert there == VALUES
    assert ours == set(KEYS)
    tier.drop(KEYS)
    await holds(tier, {})


async def test_resp3_and_hiredis_are_in_use(start_redis: StartRedis) -> None:
    server = start_redis()
    client = connect(f"redis://127.0.0.1:{server.port}/3", TIMEOUT)
    assert isinstance(client, Redis)
    await client.ping()
    [mine] = [line for line in server.admin().client_list() if line["db"] == "3"]
    assert mine["resp"] == "3"
    connection = await client.connection_pool.get_connection()
    assert type(connection._parser).__name__ == "_AsyncHiredisParser"
    await client.connection_pool.release(connection)
    await hang_up(client)
    assert len(server.admin().client_list()) == 1


async def test_one_server(start_redis: StartRedis) -> None:
    async with tier_on(f"redis://localhost:{start_redis().port}") as tier:
        await everything(tier)


async def test_an_ipv6_host(start_redis: StartRedis) -> None:
    server = start_redis("--bind", "127.0.0.1", "::1")
    async with tier_on(f"redis://[::1]:{server.port}/0") as tier:
        await everything(tier)


@pytest.mark.parametrize("query", ["", "?db=2"])
async def test_a_unix_socket(start_redis: StartRedis, tmp_path: Path, query: str) -> None:
    start_redis("--unixsocket", tmp_path / "socket")
    async with tier_on(f"unix://{tmp_path}/socket{query}") as tier:
        await everything(tier)


async def test_a_password_of_every_awkward_character(start_redis: StartRedis) -> None:
    server = start_redis("--requirepass", "p@ss:/?#[]%& word")
    async with tier_on(f"redis://:p%40ss%3A%2F%3F%23%5B%5D%25%26%20word@127.0.0.1:{server.port}/1") as tier:
        await everything(tier)


ACL = ["resetkeys", "~duet:*", "resetchannels", "-@all", "+mget", "+get", "+set", "+unlink", "+select"]


async def test_a_user_that_may_do_only_what_duet_does(start_redis: StartRedis) -> None:
    server = start_redis()
    server.admin().execute_command("ACL", "SETUSER", "duet", "on", ">secret", *ACL)
    async with tier_on(f"redis://duet:secret@127.0.0.1:{server.port}/1") as tier:
        await everything(tier)
        assert server.admin().acl_log() == []
    for beyond in (
        ["GET", "other"],
        ["SCAN", "0"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
    ):  # nothing of the above is idle
        assert "no permissions" in server.admin().execute_command("ACL", "DRYRUN", "duet", *beyond)


@pytest.mark.parametrize("one", ["+mget", "+get", "+set", "+unlink", "+select"])
async def test_every_one_of_these_commands_is_needed(start_redis: StartRedis, one: str) -> None:
    server = start_redis()
    server.admin().execute_command("ACL", "SETUSER", "duet", "on", ">secret", *[rule for rule in ACL if rule != one])
    async with tier_on(f"redis://duet:secret@127.0.0.1:{server.port}/1") as tier:
        for key in KEYS[:1]:
            with contextlib.suppress(RedisUnavailable):
                await tier.lease([key], 1)
            tier.keep({key: b"a value"}, leased=[key])
            tier.drop([key])
    assert one[1:] in {entry["object"] for entry in server.admin().acl_log()}


MAKE = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


@dataclass
class Certificates:
    """PEM files of an authority, of a server at 127.0.0.1 and of a client, and an authority that signed nothing."""

    ca: Path
    server: Path
    client: Path
    stranger: Path


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    def authority(name: str) -> Path:
        openssl(*MAKE, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        return tmp_path / f"{name}.pem"

    def signed(name: str) -> Path:
        """Certificate and key in one file."""
        names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        leaf = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        openssl(*MAKE, *names, *leaf, "-keyout", f"{name}.key", "-out", f"{name}.crt")
        both = tmp_path / f"{name}.pem"
        both.write_text((tmp_path / f"{name}.crt").read_text() + (tmp_path / f"{name}.key").read_text())
        return both

    return Certificates(authority("ca"), signed("server"), signed("client"), authority("stranger"))


@pytest.fixture
def start_tls(start_redis: StartRedis, certificates: Certificates) -> Callable[..., Server]:
    def start(*arguments: str, clients: str = "no") -> Server:
        pem = certificates.server
        files = ["--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", certificates.ca]
        return start_redis("--port", "0", *files, "--tls-auth-clients", clients, *arguments, port_option="--tls-port")

    return start


async def test_tls(start_tls: Callable[..., Server], certificates: Certificates) -> None:
    async with tier_on(f"rediss://localhost:{start_tls().port}/0?ssl_ca_certs={certificates.ca}") as tier:
        await everything(tier)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_tls_refuses_another_authority_and_another_name(
    start_tls: Callable[..., Server], certificates: Certificates, host: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    server = start_tls("--bind", "127.0.0.1", "127.0.0.2")
    authority = certificates.stranger if host == "127.0.0.1" else certificates.ca
    async with tier_on(f"rediss://{host}:{server.port}?ssl_ca_certs={authority}") as tier:
        with pytest.raises(RedisUnavailable):
            await tier.get(KEYS)
    [line] = [record.message for record in caplog.records]
    assert "certificate verify failed" in line
    async with tier_on(
        f"rediss://127.0.0.2:{server.port}?ssl_ca_certs={certificates.ca}&ssl_check_hostname=false"
    ) as t:
        await everything(t)


async def test_mutual_tls(start_tls: Callable[..., Server], certificates: Certificates) -> None:
    url = f"rediss://127.0.0.1:{start_tls(clients='yes').port}?ssl_ca_certs={certificates.ca}"
    async with tier_on(url) as tier:
        with pytest.raises(RedisUnavailable):
            await tier.get(KEYS)
    async with tier_on(f"{url}&ssl_certfile={certificates.client}&ssl_keyfile={certificates.client}") as tier:
        await everything(tier)


async def never_fails(tier: RedisTier, until: Callable[[], bool]) -> None:
    """What requests do, while servers come and go: an answer or `RedisUnavailable`, in time, and nothing else."""
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        begin = time.monotonic()
        with contextlib.suppress(RedisUnavailable):
            await tier.get(KEYS)
            await tier.lease(KEYS, 0.05)
            tier.keep(VALUES, leased=KEYS)
        assert time.monotonic() - begin < 2 * TIMEOUT + 1  # a second for a slow machine
        await asyncio.sleep(0.01)


async def lost_and_found(tier: RedisTier) -> None:
    """The outage is noticed, nobody fails, and Redis is used again."""
    await never_fails(tier, lambda: tier._reads.open)
    await never_fails(tier, lambda: not tier._reads.open)
    await everything_again(tier)


async def everything_again(tier: RedisTier) -> None:
    """One after another: what goes behind the answer goes on several connections, and may overtake."""
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(RedisUnavailable):
            tier.drop(KEYS)
            await arrived(tier)
            deleted = await tier.get(KEYS) == {}
            tier.keep(VALUES, leased=KEYS)
            await arrived(tier)
            if deleted and await tier.get(KEYS) == VALUES:
                return
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def arrived(tier: RedisTier) -> None:
    """Until what goes behind the answer has gone."""
    while tier._pending:
        await asyncio.wait(tier._pending)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda sent: sent.name)
async def test_sentinels_name_another_primary(replicated: Replicated, how: signal.Signals) -> None:
    async with tier_on(replicated.url) as tier:
        await everything(tier)
        await asyncio.gather(*(tier.get(KEYS) for _ in range(16)))  # many connections to the one that goes
        replicated.primary.process.send_signal(how)
        await lost_and_found(tier)
        assert replicated.replica.admin().role()[0] == "master"
        assert replicated.replica.admin().exists(*KEYS) == len(KEYS)


@pytest.mark.slow
async def test_a_sentinel_that_is_dead_or_hangs_is_passed_over(replicated: Replicated) -> None:
    dead, hanging, _ = replicated.sentinels
    dead.kill()
    hanging.process.send_signal(signal.SIGSTOP)
    async with tier_on(replicated.url) as tier:
        await everything(tier)


@pytest.mark.slow
async def test_a_cluster(cluster: list[Server]) -> None:
    async with tier_on(f"redis+cluster://127.0.0.1:{cluster[0].port}") as tier:
        await everything(tier)
        tier.keep(VALUES)
        await holds(tier, VALUES)
        assert all(server.admin().dbsize() for server in cluster[:3])


@pytest.mark.slow
async def test_a_cluster_lets_a_user_do_only_what_duet_does(cluster: list[Server]) -> None:
    for server in cluster:
        server.admin().execute_command("ACL", "SETUSER", "duet", "on", ">secret", *ACL, *CLUSTER_ACL)
    async with tier_on(f"redis+cluster://duet:secret@127.0.0.1:{cluster[5].port}") as tier:
        await everything(tier)
    assert [server.admin().acl_log() for server in cluster] == [[]] * 6


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda sent: sent.name)
async def test_a_cluster_replaces_a_node(cluster: list[Server], how: signal.Signals) -> None:
    nodes = ",".join(f"127.0.0.1:{server.port}" for server in cluster[:3])
    async with tier_on(f"redis+cluster://{nodes}") as tier:
        await everything(tier)
        cluster[1].process.send_signal(how)
        await lost_and_found(tier)


@pytest.mark.slow
async def test_a_cluster_without_one_of_its_parts_is_left_alone_until_it_is_whole(cluster: list[Server]) -> None:
    for replica in cluster[3:]:
        replica.kill()
    async with tier_on(f"redis+cluster://127.0.0.1:{cluster[0].port}") as tier:
        await everything(tier)
        cluster[1].kill()
        await never_fails(tier, lambda: tier._reads.open)
        for _ in range(3):  # seconds and probes later it still is
            await asyncio.sleep(PROBE_SECONDS)
            assert tier._reads.open
        cluster[1].start()
        await never_fails(tier, lambda: not tier._reads.open)
        await everything_again(tier)


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_cannot_be_used_says_why_and_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"percent-encode|begin with") as caught:
        connect(url, TIMEOUT)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nor in what is logged with it
