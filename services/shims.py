"""What Duet uses of other libraries beside their documented interfaces, in one place, and whether it is still there.

The lock files pin the versions. `changes` is called when a service starts, so that an update of a library says in the
log what has to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from starlette.types import ASGIApp, Receive


def body_received(receive: Receive) -> bool:
    """Whether the whole body has arrived, so that reading it does not wait; found out as in `is_disconnected`."""
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False


def is_disconnected(receive: Receive) -> Callable[[], bool] | None:
    """A cheap function that returns whether the client has disconnected; None if this server cannot tell.

    ASGI reports it by a message, for which every request would need a waiting task. uvicorn's `receive` is a method of
    the object that has the state, so its attribute can be read just before compute.
    """
    cycle: Any = getattr(receive, "__self__", None)
    return (lambda: cycle.disconnected) if hasattr(cycle, "disconnected") else None


def hoist(app: Any, around: Callable[[ASGIApp], ASGIApp]) -> bool:
    """Wrap the whole stack of layers that Starlette has built; returns False if it has none."""
    stack = getattr(app, "middleware_stack", None)
    if stack is None:
        return False
    app.middleware_stack = around(stack)
    return True


def use_connections(protocol: type) -> None:
    """Let uvicorn, which BentoML starts after it has imported the service, make its HTTP connections of this class."""
    from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415

    HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]


def before_signals(handle: Callable[[Any, int], None]) -> None:
    """Call `handle(processes, number)` before circus, BentoML's parent process, handles a signal."""
    from circus.sighandler import SysHandler  # noqa: PLC0415

    first = SysHandler.signal

    def on_signal(self: Any, number: int, frame: object = None) -> None:
        watchers = self.controller.arbiter.iter_watchers()
        handle([process for watcher in watchers for process in watcher.processes.values()], number)
        first(self, number, frame)

    SysHandler.signal = on_signal


def request_schema() -> Any:
    """BentoML's base of the schemas of requests; its `from_http_request` can be replaced."""
    from _bentoml_sdk.io_models import IODescriptor  # noqa: PLC0415

    return IODescriptor


def too_many_files(message: str) -> bool:
    """Whether Starlette's parser of forms stopped because of the number of files; it has one error for everything."""
    return message.startswith("Too many files")


def try_options(client: Redis) -> None:
    """Make a connection object as redis-py will, which checks the options, and connect nothing."""
    client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)


async def close_sentinels(client: Redis) -> None:
    """Close the connections to Sentinels, which redis-py leaves open."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    if manager is not None:
        await manager.aclose()


def changes() -> list[str]:
    """What is no longer as this module needs it, a sentence each."""
    from circus.sighandler import SysHandler  # noqa: PLC0415
    from redis.asyncio.connection import ConnectionPool  # noqa: PLC0415
    from redis.asyncio.sentinel import SentinelConnectionPool  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.formparsers import MultiPartParser  # noqa: PLC0415
    from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: PLC0415

    def names(function: Any) -> set[object]:
        return {*function.__code__.co_names, *function.__code__.co_consts}

    files = str([const for const in names(MultiPartParser.on_headers_finished) if isinstance(const, str)])
    kept = {
        "uvicorn: RequestResponseCycle has no `disconnected`; clients that left are computed": "disconnected"
        in names(RequestResponseCycle.__init__),
        "uvicorn: RequestResponseCycle has no `more_body`; every body is read with a timer": "more_body"
        in names(RequestResponseCycle.__init__),
        "uvicorn: HTTP_PROTOCOLS has no `auto`; connections are not bounded": "auto" in HTTP_PROTOCOLS,
        "uvicorn: HttpToolsProtocol has no `_unset_keepalive_if_required`; idle connections stay open": hasattr(
            HttpToolsProtocol, "_unset_keepalive_if_required"
        ),
        "uvicorn: HttpToolsProtocol makes no scope in `on_message_begin`; requests through ASGI fail": "scope"
        in names(HttpToolsProtocol.on_message_begin),
        "uvicorn: HttpToolsProtocol has no `_start_asgi_task`; requests in one packet fail": hasattr(
            HttpToolsProtocol, "_start_asgi_task"
        ),
        "starlette: an application has no `middleware_stack`; requests pass BentoML's layers": "middleware_stack"
        in names(Starlette.__call__),
        "starlette: too many files of a form have another message; they are answered with 400": "Too many files"
        in files,
        "circus: SysHandler has no `signal`; Ctrl-C waits for the grace period": hasattr(SysHandler, "signal"),
        "bentoml: IODescriptor has no `from_http_request`; BentoML parses requests itself": hasattr(
            request_schema(), "from_http_request"
        ),
        "redis: a pool has no `connection_class`; unknown options are found by the first request": "connection_class"
        in names(ConnectionPool.__init__),
        "redis: a Sentinel pool has no `sentinel_manager`; connections to Sentinels stay open": "sentinel_manager"
        in names(SentinelConnectionPool.__init__),
    }
    return [sentence for sentence, holds in kept.items() if not holds]
