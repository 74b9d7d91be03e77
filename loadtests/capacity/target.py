"""The real service that costs are measured on and predictions are compared with."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]

from loadtests.bench import cores, network, openloop, request
from loadtests.bench.openloop import Answers, Connection, Load
from loadtests.bench.request import NO_STORE
from loadtests.capacity.pod import Record
from loadtests.rollout import ports, proxies
from loadtests.rollout.replicas import replicas

SLOTS = ("a", "b", "c")
SERVICE = "classification"
CALLERS = 64  # requests that are always under way in a closed loop: the server never waits


@dataclass(frozen=True)
class Closed:
    """A closed loop: what it reached.

    Attributes:
        answers: in all.
        seconds: length.
        cpu: seconds of CPU time of the server's processes.
        median: seconds of one request.
    """

    answers: int
    seconds: float
    cpu: float
    median: float

    @property
    def each(self) -> float:
        """Seconds an answer."""
        return self.seconds / self.answers

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.answers


class Varied(Load):
    """Each request is the next of a row, which begins again at its end."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._rows = cycle(requests)
        super().__init__(port, b"")

    @property
    def request(self) -> bytes:
        return next(self._rows)

    @request.setter
    def request(self, _: bytes) -> None:
        """There is one for each."""


class _Closed(Varied):
    """Every connection asks again at once, until the time is over."""

    stop = 0.0

    def idle(self, connection: Connection) -> None:
        now = time.monotonic()
        if now < self.stop:
            self._outstanding += 1
            connection.ask(now)
        else:
            super().idle(connection)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time so far of these processes and all that they have started, user and system."""
    used = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            times = process.cpu_times()
            used += times.user + times.system
    return used


async def closed(port: int, rows: Sequence[bytes], connections: int, seconds: float, pids: Sequence[int]) -> Closed:
    """Keep so many requests under way for `seconds`."""
    load = _Closed(port, rows)
    begin, used = time.monotonic(), cpu_seconds(pids)
    load.stop = begin + seconds
    await load.connect(connections)
    await asyncio.sleep(seconds)
    spent, took = cpu_seconds(pids) - used, time.monotonic() - begin
    await load.settle(5)
    latency = np.subtract(load.answers.received, load.answers.sent)
    return Closed(len(latency), took, spent, float(np.median(latency)))


def ask(items: int, name: str, deadline: float | None, *, cached: bool = False, image: int = 0) -> request.Request:
    """A V2 request for the classes of held-out digits; requests with another `image` differ in a few pixels."""
    images = _digits(items).copy()
    images[:, 0, 0, :4] = np.frombuffer(image.to_bytes(4, "little"), np.uint8)
    headers = {} if cached else dict(NO_STORE)
    if deadline is not None:
        headers["X-Request-Timeout-Ms"] = f"{1000 * deadline:g}"
    return request.v2_binary(name, images, **headers)


@cache
def _digits(items: int) -> np.ndarray:
    return network.digits(items)


def figure(port: int, name: str) -> float:
    """A metric of the operation `classify`, as /metrics has it."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    found = re.search(rf'^{name}{{[^}}]*operation="classify"[^}}]*}} ([\d.e+-]+)', text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{name}: /metrics has no such series of the operation classify")
    return float(found[1])


def record(answers: Answers) -> Record:
    """As simulated requests are recorded, with the first one due at 0 or later; a status 0 has no answer."""
    order = np.argsort(answers.due)
    due = np.array(answers.due)[order]
    return Record(due, np.array(answers.received)[order], np.array(answers.status)[order])


@dataclass(frozen=True)
class Killed:
    """What three replicas did of which one was killed.

    Attributes:
        record: of all requests, times from the start.
        killed, noticed: seconds from the start to the kill, and until the proxy knew.
        alone: the closed loop through the proxy before.
    """

    record: Record
    killed: float
    noticed: float
    alone: Closed


async def kill_one(
    home: Path, tag: str, raw: bytes, draw: Callable[[float], np.ndarray], killed: float, noticed: float
) -> Killed:
    """Three replicas behind haproxy, all on one core; the first is killed under load, and later the proxy learns it.

    Args:
        home: BENTOML_HOME.
        tag: what is served.
        raw: the request.
        draw: seconds to the moments of the requests, for a capacity in requests a second.
        killed: when, seconds from the start.
        noticed: when the proxy learns it.
    """
    targets = dict(zip(SLOTS, ports.free(len(SLOTS)), strict=True))
    (front,) = ports.free(1)
    settings = {"DUET_MODELS": tag, "DUET_DRAIN_SECONDS": "0"}
    os.sched_setaffinity(0, {cores.SERVER})  # what is started inherits it
    with (
        TemporaryDirectory(prefix="duet-capacity-") as folder,
        proxies.running("haproxy", front, targets, Path(folder, "haproxy")) as proxy,
    ):
        async with replicas(len(SLOTS), SERVICE, targets, home, proxy, **settings) as those:
            os.sched_setaffinity(0, {cores.LOAD})
            await closed(front, [raw], CALLERS, 1.0, [])
            alone = await closed(front, [raw], CALLERS, 3.0, [])
            due = draw(1 / alone.each)
            sending = asyncio.create_task(openloop.send(Load(front, raw), due))
            await asyncio.sleep(openloop.SETTLE + killed)
            victim = those.running.pop(SLOTS[0]).process
            parent = psutil.Process(victim.pid)
            family = [parent, *parent.children(recursive=True)]  # the worker would go on without its parent
            at = time.monotonic()
            for process in family:
                process.kill()
            await asyncio.sleep(noticed - killed)
            proxy.leave(SLOTS[0])
            left = time.monotonic()
            seen = record(await sending)
            await asyncio.to_thread(victim.wait)
    begin = float(seen.due[0] - due[0])
    shifted = Record(seen.due - begin, seen.received - begin, seen.status)
    return Killed(shifted, at - begin, left - begin, alone)
