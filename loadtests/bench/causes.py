"""What can happen to Redis, caused for real: signals, its own commands, and a proxy that misbehaves.

Every cause is a context: the fault begins with it and has been undone when it ends.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from loadtests.bench.redis_server import PASSWORD, Redis


class Proxy:
    """Passes on what goes to Redis and what comes from it, and misbehaves as its attributes say.

    Attributes:
        delay: seconds that an answer is held back.
        silent: answers are swallowed.
        cuts: the connection ends in the middle of an answer.
        beyond: bytes; only longer answers are swallowed or cut.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay = 0.0
        self.silent = self.cuts = False
        self.beyond = 0
        self._connections: set[asyncio.Task[None] | None] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        started.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(listening.sockets[0].getsockname()[1])
        started.set()
        await self._ended.wait()
        listening.close()

    async def _connected(self, asked: asyncio.StreamReader, answered: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError), ExitStack() as stack:
            task = asyncio.current_task()
            self._connections.add(task)  # asyncio itself forgets it once the client has hung up
            stack.callback(self._connections.discard, task)
            stack.callback(answered.close)
            source, sink = await asyncio.open_connection("127.0.0.1", self._target)
            stack.callback(sink.close)
            questions = asyncio.create_task(_pass_on(asked, sink))
            stack.callback(questions.cancel)
            while answer := await source.read(2**20):
                await asyncio.sleep(self.delay)
                long = len(answer) > self.beyond
                if not (self.silent and long):
                    answered.write(answer[: len(answer) // 2] if self.cuts and long else answer)
                    await answered.drain()
                if self.cuts and long:
                    return


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(2**20):
            sink.write(data)
            await sink.drain()
        sink.close()


@contextmanager
def nothing(redis: Redis, proxy: Proxy) -> Iterator[None]:
    yield


@contextmanager
def killed(redis: Redis, proxy: Proxy) -> Iterator[None]:
    redis.kill()
    yield
    redis.start()


@contextmanager
def stopped(redis: Redis, proxy: Proxy) -> Iterator[None]:
    redis.process.send_signal(signal.SIGSTOP)
    yield
    redis.process.send_signal(signal.SIGCONT)


@contextmanager
def restarted(redis: Redis, proxy: Proxy) -> Iterator[None]:
    redis.kill()
    redis.start()
    yield


@contextmanager
def full(redis: Redis, proxy: Proxy) -> Iterator[None]:
    redis.set("maxmemory", "1")
    yield
    redis.set("maxmemory", "0")


@contextmanager
def read_only(redis: Redis, proxy: Proxy) -> Iterator[None]:
    redis.client.replicaof("127.0.0.1", 1)
    yield
    redis.client.replicaof("NO", "ONE")


@contextmanager
def wrong_password(redis: Redis, proxy: Proxy) -> Iterator[None]:
    """Connections that stand stay authenticated, so they are ended."""
    redis.set("requirepass", "changed")
    redis.hang_up()
    yield
    redis.set("requirepass", PASSWORD)


@contextmanager
def password_rotated(redis: Redis, proxy: Proxy) -> Iterator[None]:
    """The user gets a second password, and the first one holds until no replica has it: no replica notices."""
    redis.client.acl_setuser("default", enabled=True, passwords=["+second"])
    redis.hang_up()
    yield
    redis.client.acl_setuser("default", enabled=True, passwords=["-second"])


@contextmanager
def other_authority(redis: Redis, proxy: Proxy) -> Iterator[None]:
    """The server shows a certificate of an authority that Duet does not trust, to new connections."""
    redis.show_stranger()
    redis.hang_up()
    yield
    redis.show(redis.authority)


@contextmanager
def asleep(redis: Redis, proxy: Proxy) -> Iterator[None]:
    sleep = threading.Thread(target=redis.client.execute_command, args=("DEBUG", "SLEEP", "2"))
    sleep.start()
    yield
    sleep.join()


@contextmanager
def again_and_again(work: Callable[[], object]) -> Iterator[None]:
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.01):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def flushed(redis: Redis, proxy: Proxy) -> AbstractContextManager[None]:
    return again_and_again(redis.client.flushall)


def garbage(redis: Redis, proxy: Proxy) -> AbstractContextManager[None]:
    """Every value becomes something else: noise, nothing, the beginning of a pickle, or itself with a few
    bytes changed."""
    kinds = itertools.cycle((os.urandom(100), b"", b"\x80\x04N.", None))

    def spoil() -> None:
        for key in redis.client.scan_iter("duet:*", count=1000):
            value = next(kinds)
            if value is None:
                redis.client.setrange(key, 16, os.urandom(4))
            else:
                redis.client.set(key, value, px=60_000)

    return again_and_again(spoil)


def misbehaving(**attributes: float | bool) -> Callable[[Redis, Proxy], AbstractContextManager[None]]:
    @contextmanager
    def cause(redis: Redis, proxy: Proxy) -> Iterator[None]:
        before = {name: getattr(proxy, name) for name in attributes}
        vars(proxy).update(attributes)
        yield
        vars(proxy).update(before)

    return cause


@dataclass(frozen=True)
class Fault:
    """A fault and where it shows.

    Attributes:
        opens: the side whose breaker it opens, if any.
        proxied: Redis is asked through the proxy.
        tls: Redis is asked with TLS.
        at_start: it is there before the server is.
        admission: the server's setting.
        seconds: how long it lasts.
    """

    name: str
    cause: Callable[[Redis, Proxy], AbstractContextManager[None]]
    opens: str = ""
    proxied: bool = False
    tls: bool = False
    at_start: bool = False
    admission: str = "always"
    seconds: float = 3.0


HEALTHY = (
    Fault("none", nothing),
    Fault("none, through the proxy", nothing, proxied=True),
    Fault("none, TLS", nothing, tls=True),
)
FAULTS = (
    Fault("absent at start", killed, "read", at_start=True),
    Fault("killed (SIGKILL)", killed, "read"),
    Fault("hung (SIGSTOP)", stopped, "read"),
    Fault("DEBUG SLEEP 2", asleep, "read"),
    Fault("restarted, empty", restarted),
    Fault("out of memory", full, "write"),
    Fault("read-only replica", read_only, "write"),
    Fault("password rotated", password_rotated),
    Fault("wrong password", wrong_password, "read"),
    Fault("TLS, wrong CA", other_authority, "read", tls=True),
    Fault("TLS, wrong CA at start", other_authority, "read", tls=True, at_start=True),
    Fault("FLUSHALL every 10 ms", flushed),
    Fault("values become garbage", garbage),
    Fault("accepts, never answers", misbehaving(silent=True), "read", proxied=True),
    Fault("answers probes only", misbehaving(silent=True, beyond=1000), "read", proxied=True),
    Fault("cuts every answer", misbehaving(cuts=True), "read", proxied=True),
    Fault("cuts long answers", misbehaving(cuts=True, beyond=1000), "read", proxied=True),
    Fault("slow by 50 ms", misbehaving(delay=0.05), "read", proxied=True),
    Fault("slow by 20 ms, forced on", misbehaving(delay=0.02), proxied=True),
    Fault("slow by 20 ms, by cost", misbehaving(delay=0.02), proxied=True, admission="auto", seconds=8.0),
)
