"""What Duet uses of other libraries beside their documented interfaces, in one place, and whether it is still there.

The lock files pin the versions. `changes` is called when a service starts, so that an update of a library says in the
log what has to be looked at.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import logging.config
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore
    from redis.asyncio import Redis
    from starlette.types import ASGIApp, Receive

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


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


WORKER = "_bentoml_impl.worker.service"  # the module that BentoML starts with `python -m` for each worker


def fork_workers() -> None:
    """Let the parent process fork its workers, with all that it has imported, instead of starting Python anew.

    It saves a worker a second of imports, and the memory that both then share. circus passes a function that runs
    between fork and exec; here it does not return, so that no exec follows. Beside a thread of Python, which a fork
    could catch with a lock in its hands, a worker is started as BentoML does. So it is off Linux, where libraries of
    the system do not bear a fork.
    """
    if sys.platform != "linux":
        return
    from circus import process  # noqa: PLC0415

    start = process.Popen

    def popen(command: Sequence[str], *, preexec_fn: Callable[[], None], env: Mapping[str, str], **rest: Any) -> Any:
        if list(command[1:3]) == ["-m", WORKER] and threading.active_count() == 1:
            prepare = preexec_fn
            sys.stdout.flush()  # else both processes would write what waits
            sys.stderr.flush()
            gc.freeze()  # a collection in either process would write to pages that both share

            def preexec_fn() -> None:
                _work(command[3:], env, prepare)

        return start(command, preexec_fn=preexec_fn, env=env, **rest)

    process.Popen = popen


def _work(arguments: Sequence[str], env: Mapping[str, str], prepare: Callable[[], None]) -> NoReturn:
    """Be a worker of BentoML, in a process that was just forked; ends it."""
    status = 1
    try:
        prepare()
        os.environ.clear()
        os.environ.update(env)
        _forget_parent(int(arguments[list(arguments).index("--fd") + 1]))
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # see telemetry/metrics.py
        from _bentoml_impl.worker.service import main  # type: ignore[import-untyped]  # noqa: PLC0415
        from bentoml._internal.log import SERVER_LOGGING_CONFIG  # noqa: PLC0415

        SERVER_LOGGING_CONFIG["disable_existing_loggers"] = False  # Duet's exist, for the parent has imported it
        main(args=list(arguments), prog_name=WORKER)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as Python does at the end of a program
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _forget_parent(listener: int) -> None:
    """Close the files and reset the signals that an exec would; `listener` stays open."""
    os.closerange(3, listener)
    os.closerange(listener + 1, os.sysconf("SC_OPEN_MAX"))
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python sets them when it starts
        signal.signal(number, signal.SIG_IGN)


def write_server_logs(formatter: Callable[[], logging.Formatter], bound: Callable[[], logging.Filter]) -> None:
    """Write the lines of BentoML, circus and uvicorn so, in processes that start later too."""
    from bentoml._internal.log import SERVER_LOGGING_CONFIG as CONFIG  # noqa: PLC0415

    CONFIG["formatters"]["traced"] = {"()": formatter}
    CONFIG["filters"]["bound"] = {"()": bound}
    CONFIG["handlers"]["tracehandler"]["filters"] = ["tracing", "bound"]
    CONFIG["disable_existing_loggers"] = False
    logging.config.dictConfig(CONFIG)


def request_schema() -> Any:
    """BentoML's base of the schemas of requests; its `from_http_request` can be replaced."""
    from _bentoml_sdk.io_models import IODescriptor  # noqa: PLC0415

    return IODescriptor


def return_free_memory() -> None:
    """Return free memory to the system: the C library keeps what many small pieces took."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)


def map_large_blocks() -> None:
    """Give each block of 1 MiB or more a mapping of its own, whose end returns it to the system.

    The C library does so at first, but raises this threshold to the size of the largest block that was freed, up to
    32 MiB. The buffers of bodies that grow side by side then leave holes of their own sizes in the heap. It would raise
    the threshold for free memory at the heap's end, too; left at 128 KiB, a batch would give its memory back each time.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc has it
        mallopt(M_MMAP_THRESHOLD, 2**20)
        mallopt(M_TRIM_THRESHOLD, 2**23)


def too_many_files(message: str) -> bool:
    """Whether Starlette's parser of forms stopped because of the number of files; it has one error for everything."""
    return message.startswith("Too many files")


def model_store(folder: Path) -> ModelStore:
    """A model store of BentoML in this folder."""
    from bentoml._internal.models import ModelStore  # noqa: PLC0415

    return ModelStore(folder)


def model_store_folder() -> Path:
    """The folder of the model store that BentoML uses: that of BENTOML_HOME, or of the bento that is served."""
    from bentoml._internal.configuration.containers import BentoMLContainer  # noqa: PLC0415

    folder: Path = BentoMLContainer.model_store.get()._path
    return folder


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
    return _changes_of_the_server() + _changes_of_redis()


def _changes_of_redis() -> list[str]:
    if "redis" not in sys.modules:  # a process without Redis would import it for a tenth of a second
        return []
    from redis.asyncio.connection import ConnectionPool  # noqa: PLC0415
    from redis.asyncio.sentinel import SentinelConnectionPool  # noqa: PLC0415

    kept = {
        "redis: a pool has no `connection_class`; unknown options are found by the first request": "connection_class"
        in _names(ConnectionPool.__init__),
        "redis: a Sentinel pool has no `sentinel_manager`; connections to Sentinels stay open": "sentinel_manager"
        in _names(SentinelConnectionPool.__init__),
    }
    return [sentence for sentence, holds in kept.items() if not holds]


def _names(function: Any) -> set[object]:
    return {*function.__code__.co_names, *function.__code__.co_consts}


def _changes_of_the_server() -> list[str]:
    from bentoml._internal.log import SERVER_LOGGING_CONFIG  # noqa: PLC0415
    from circus import process  # noqa: PLC0415
    from circus.sighandler import SysHandler  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.formparsers import MultiPartParser  # noqa: PLC0415
    from uvicorn.config import HTTP_PROTOCOLS  # noqa: PLC0415
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle  # noqa: PLC0415

    files = str([const for const in _names(MultiPartParser.on_headers_finished) if isinstance(const, str)])
    kept = {
        "bentoml: its log has no handler `tracehandler`; DUET_LOG_FORMAT does not change its lines": "tracehandler"
        in SERVER_LOGGING_CONFIG["handlers"],
        "uvicorn: RequestResponseCycle has no `disconnected`; clients that left are computed": "disconnected"
        in _names(RequestResponseCycle.__init__),
        "uvicorn: RequestResponseCycle has no `more_body`; every body is read with a timer": "more_body"
        in _names(RequestResponseCycle.__init__),
        "uvicorn: HTTP_PROTOCOLS has no `auto`; connections are not bounded": "auto" in HTTP_PROTOCOLS,
        "uvicorn: HttpToolsProtocol has no `_unset_keepalive_if_required`; idle connections stay open": hasattr(
            HttpToolsProtocol, "_unset_keepalive_if_required"
        ),
        "uvicorn: HttpToolsProtocol makes no scope in `on_message_begin`; requests through ASGI fail": "scope"
        in _names(HttpToolsProtocol.on_message_begin),
        "uvicorn: HttpToolsProtocol has no `_start_asgi_task`; requests in one packet fail": hasattr(
            HttpToolsProtocol, "_start_asgi_task"
        ),
        "starlette: an application has no `middleware_stack`; requests pass BentoML's layers": "middleware_stack"
        in _names(Starlette.__call__),
        "starlette: too many files of a form have another message; they are answered with 400": "Too many files"
        in files,
        "circus: SysHandler has no `signal`; Ctrl-C waits for the grace period": hasattr(SysHandler, "signal"),
        "bentoml: IODescriptor has no `from_http_request`; BentoML parses requests itself": hasattr(
            request_schema(), "from_http_request"
        ),
        "circus: process has no `Popen`; workers import everything again": "Popen" in _names(process.Process.spawn),
    }
    return [sentence for sentence, holds in kept.items() if not holds]
