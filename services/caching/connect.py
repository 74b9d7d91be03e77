"""Redis clients by URL: one server, Sentinels, or a cluster.

| URL | what |
| --- | --- |
| `redis://[user:password@]host[:port][/db]`, `unix://[user:password@]/path[?db=0]` | one server |
| `rediss://...` | the same over TLS |
| `redis+sentinel://[user:password@]host[:port],.../service[/db]` | the primary that Sentinels name |
| `redis+cluster://[user:password@]host[:port],...` | a cluster, from any of its nodes |

`rediss+sentinel` and `rediss+cluster` are the same over TLS. User and password are percent-encoded. Options after `?`
are redis-py's: `ssl_ca_certs=/ca.pem`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs=none`, `ssl_check_hostname=false`.
Sentinels with their own credentials take `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from services.settings import REDIS_SCHEMES
from services.shims import close_sentinels, try_options

PORT, SENTINEL_PORT = 6379, 26379
CONNECTIONS = 32  # to one server; further commands wait for a free connection

PARTS = re.compile(
    r"((?P<username>[^:/?#]*)(:(?P<password>[^/?#]*))?@)?(?P<hosts>[^@/?#]*)(?P<path>[^@?#]*)(\?(?P<query>[^@#]*))?"
)
PATHS = {
    "": (r"/?\d*", "after the host, write nothing, or / and the number of a database"),
    "unix": (r"/.+", "write the full path of the socket, unix:///path"),
    "sentinel": (r"/[^/]+(/\d+)?/?", "after the Sentinels, write /service or /service/db"),
    "cluster": (r"/?0?", "a cluster has no databases: write nothing after its hosts"),
}
ENCODE = "in user and password, percent-encode every character that is not a letter or a digit"

Client = Redis | RedisCluster


def connect(url: str, timeout_seconds: float) -> Client:
    """A client that connects when it is first used.

    There are no retries: redis-py's default turns a timeout of 50 ms into seconds. Reads have no timeout: the caller
    bounds the whole command, which costs a third less than one timeout for each read.

    Raises:
        ValueError: the URL is not valid; the message does not quote it, because it may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in REDIS_SCHEMES:
        raise ValueError(f"begin with one of {', '.join(f'{name}://' for name in REDIS_SCHEMES)}")
    parts = PARTS.fullmatch(rest)
    if parts is None:
        raise ValueError("an @ or # stands in the wrong place: " + ENCODE)
    kind = "unix" if scheme == "unix" else scheme.partition("+")[2]
    pattern, meaning = PATHS[kind]
    if not re.fullmatch(pattern, parts["path"]):
        raise ValueError(f"{meaning}; {ENCODE}")
    try:
        client = _client(url, kind, parts, timeout_seconds)
        if isinstance(client, Redis):  # an unknown option raises here, not in the first request
            try_options(client)
    except (ValueError, TypeError, RedisError):  # their messages quote the URL
        raise ValueError(f"check hosts, ports and the options after ?; {ENCODE}") from None
    return client


def address(client: Client) -> tuple[str, int] | None:
    """Host and port of one server; None where Sentinels or a cluster choose it, and of a socket."""
    if isinstance(client, RedisCluster):
        return None
    options = client.connection_pool.connection_kwargs
    return (options["host"], int(options.get("port", PORT))) if "host" in options else None


async def hang_up(client: Client) -> None:
    """Close every connection, also those to Sentinels; the next use connects again and asks for the primary again."""
    await client.aclose()
    if isinstance(client, Redis):
        await close_sentinels(client)


def _client(url: str, kind: str, parts: re.Match[str], timeout_seconds: float) -> Client:
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": None,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        # A connection then takes one round trip instead of four, so that more of the timeout is left for the command.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "max_connections": 2 * CONNECTIONS,  # never reached: the caller's semaphore waits, this limit raises
    }
    query: dict[str, Any] = {name: _value(text) for name, text in parse_qsl(parts["query"] or "", strict_parsing=True)}
    if kind in ("", "unix"):
        return Redis.from_pool(ConnectionPool.from_url(url, **options))
    if url.startswith("rediss"):
        query["ssl"] = True
    user: dict[str, Any] = {"username": _plain(parts["username"]), "password": _plain(parts["password"])}
    if kind == "cluster":
        startup = [ClusterNode(*_node(node, PORT)) for node in parts["hosts"].split(",")]
        return RedisCluster(startup_nodes=startup, **options, **user, **query)
    nodes = [_node(node, SENTINEL_PORT) for node in parts["hosts"].split(",")]
    service, _, db = parts["path"].strip("/").partition("/")
    own = {name: query.pop(f"sentinel_{name}", None) for name in user}
    tls = {name: value for name, value in query.items() if name.startswith("ssl")}
    # If one Sentinel hangs, there must be time to ask the next one.
    hurry = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout_seconds / 2)
    asking = options | own | tls | hurry
    sentinel: Any = Sentinel(nodes, sentinel_kwargs=asking, **options, **user, **query)  # type: ignore[no-untyped-call]
    primary: Redis = sentinel.master_for(unquote(service), db=int(db or "0"))
    return primary


def _node(text: str, port: int) -> tuple[str, int]:
    node = urlsplit(f"//{text}")
    if not node.hostname:
        raise ValueError("a host has no name")
    return node.hostname, node.port or port


def _value(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), text)


def _plain(text: str | None) -> str | None:
    return None if not text else unquote(text)
