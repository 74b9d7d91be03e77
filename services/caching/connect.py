"""Clients for every way in which a Redis is run, by URL.

| URL | what |
| --- | --- |
| `redis://[user:password@]host[:port][/db]`, `unix://path` | one server |
| `rediss://...` | the same over TLS |
| `redis+sentinel://[user:password@]host[:port],.../service[/db]` | the primary that Sentinels name |
| `redis+cluster://[user:password@]host[:port],...` | a cluster, from any of its nodes |

`rediss+sentinel` and `rediss+cluster` are those over TLS. Options after `?` are redis-py's: `ssl_ca_certs=/ca.pem`,
`ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs=none`, `ssl_check_hostname=false`; `sentinel_username` and
`sentinel_password` where Sentinels have credentials of their own.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from services.settings import REDIS_SCHEMES

PORT, SENTINEL_PORT = 6379, 26379
CONNECTIONS = 32  # to one server; whoever comes beyond waits its turn

Client = Redis | RedisCluster


def connect(url: str, timeout_seconds: float) -> Client:
    """A client that connects when it is first used.

    No retries: redis-py's default turns a timeout of 50 ms into seconds. Answers have no timeout of their own: the
    caller bounds the whole command, which costs a third less than a timeout a read.

    Raises:
        ValueError: not such a URL; the message does not quote it, for it may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in REDIS_SCHEMES:
        raise ValueError(f"begin with one of {', '.join(f'{name}://' for name in REDIS_SCHEMES)}")
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": None,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": 2 * CONNECTIONS,  # never the bound: it raises where the caller's semaphore waits
    }
    kind = scheme.partition("+")[2]
    if not kind:
        return Redis.from_pool(ConnectionPool.from_url(url, **options))
    parts = urlsplit(f"//{rest}")
    nodes = _nodes(parts.netloc.rpartition("@")[2], SENTINEL_PORT if kind == "sentinel" else PORT)
    query: dict[str, Any] = {
        name: _value(text) for name, text in parse_qsl(parts.query, strict_parsing=bool(parts.query))
    }
    user: dict[str, Any] = {"username": _plain(parts.username), "password": _plain(parts.password)}
    if scheme.startswith("rediss"):
        query["ssl"] = True
    if kind == "cluster":
        startup = [ClusterNode(host, port) for host, port in nodes]
        return RedisCluster(startup_nodes=startup, cluster_error_retry_attempts=0, **options, **user, **query)
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not (db or "0").isdecimal():
        raise ValueError("a Sentinel URL ends with /service or /service/db")
    own = {name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    tls = {name: value for name, value in query.items() if name.startswith("ssl")}
    sentinel: Any = Sentinel(nodes, sentinel_kwargs=options | own | tls, **options, **user, **query)  # type: ignore[no-untyped-call]
    primary: Redis = sentinel.master_for(service, db=int(db or "0"))
    return primary


def _nodes(listed: str, default: int) -> list[tuple[str, int]]:
    nodes = []
    for node in listed.split(","):
        host, colon, port = node.rpartition(":")
        if not colon:
            host, port = node, str(default)
        if not host or not port.isdecimal():
            raise ValueError("name every node as host or host:port, with commas between them")
        nodes.append((host.strip("[]"), int(port)))
    return nodes


def _value(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _plain(text: str | None) -> str | None:
    return None if not text else unquote(text)
