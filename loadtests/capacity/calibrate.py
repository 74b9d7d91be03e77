"""The costs of requests, measured on this machine: a server on one core, and its model alone.

A closed loop with many callers tells what a request takes when the event loop reads many at once; one caller tells what
a turn of the loop takes beside that. A server that sleeps longer between requests takes more for each: an open loop at
a low rate tells how much. One above capacity tells what a refusal takes, with the batcher's own work on a long queue.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from itertools import count, islice
from tempfile import TemporaryDirectory

import numpy as np
import redis
import uvloop

from loadtests.bench import cores, network, openloop
from loadtests.bench.openloop import Load
from loadtests.bench.redis_server import free_port
from loadtests.bench.server import Server
from loadtests.capacity import arrivals, quiet, target
from loadtests.capacity.costs import Costs
from loadtests.capacity.pod import OPERATION, Record
from loadtests.capacity.target import CALLERS, Closed
from services.inference.bundle import Bundle
from services.inference.model import Model
from services.inference.registry import Entry
from services.served import INLINE_SECONDS, Arrays, Warm, open_model, warm_up
from services.settings import Settings

SIZES = (1, 2, 4, 8, 16, 32, 48, 64)
SELDOM, OVER = 0.15, 1.6  # of the capacity: each request wakes the server, and many are refused
QUERIES = 5000
UNASKED = 2**24  # from here on, images that no run asks for


def computing(served: Bundle, seconds: float) -> tuple[Warm, dict[int, float]]:
    """What a server measures of the model at its start, and the median seconds of batches by size, on one core."""
    os.sched_setaffinity(0, {cores.SERVER})
    entry = Entry(served.name, served.version, "classification", served.path)
    model: Model = open_model(entry, Settings(threads=1))
    warm = warm_up(model)[OPERATION]
    example = model.example(OPERATION)
    times = {}
    for size in SIZES:
        batch = {name: np.repeat(array, size, axis=0) for name, array in example.items()}

        def measure(batch: Arrays = batch) -> tuple[float, float]:
            runs = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                begin = time.perf_counter()
                model.run(OPERATION, batch)
                runs.append(time.perf_counter() - begin)
            return statistics.median(runs), 0.0

        times[size] = quiet.least_disturbed(measure).result
    os.sched_setaffinity(0, {cores.LOAD})
    return warm, times


def asking_redis() -> tuple[float, float]:
    """CPU seconds of a Redis server for a query of one key, and seconds of a round trip."""
    port = free_port()
    with TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--save", "", "--dir", folder, "--bind", "127.0.0.1"]
        process = subprocess.Popen(cores.pinned(cores.SERVER, command), stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port)
        try:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.01)
            client.set("duet:key", bytes(100))
            used, trips = target.cpu_seconds([process.pid]), []
            for _ in range(QUERIES):
                begin = time.perf_counter()
                client.mget("duet:key")
                trips.append(time.perf_counter() - begin)
            each = (target.cpu_seconds([process.pid]) - used) / QUERIES
        finally:
            client.close()
            process.kill()
            process.wait()
    return each, statistics.median(trips)


def calibrate(
    server: Server,
    served: Bundle,
    items: int,
    seconds: float,
    deadline: float,
    item: float,
    model: tuple[Warm, dict[int, float]],
) -> tuple[Costs, dict[str, float]]:
    """The costs of requests with so many images, and what they were computed from.

    Args:
        server: it runs.
        served: what it serves.
        items: images a request.
        seconds: of each loop.
        deadline: seconds that clients wait in open loops.
        item: what the server took for the time of an item when it started.
        model: from `computing`.
    """
    pids = [server.process.pid]

    others: list[float] = []
    unasked = count(UNASKED)

    def loop(connections: int, *, cached: bool = False, images: int = 0) -> tuple[Closed, float]:
        def measure() -> tuple[tuple[Closed, float], float]:
            rows = [
                target.ask(items, served.name, None, cached=cached, image=image).raw("duet")
                for image in (islice(unasked, images) if images else [0])
            ]
            batches, used = _batches(server.port), target.cpu_seconds(pids)
            closed = uvloop.run(target.closed(server.port, rows, connections, seconds, pids))
            size = _mean(batches, _batches(server.port))
            return (closed, size), target.cpu_seconds(pids) - used

        found = quiet.least_disturbed(measure)
        others.append(found.others)
        return found.result

    def offered(rate: float) -> tuple[Record, float]:
        def measure() -> tuple[tuple[Record, float], float]:
            load = Load(server.port, target.ask(items, served.name, deadline).raw("duet"))
            used = target.cpu_seconds(pids)
            moments = arrivals.poisson(rate, seconds, np.random.default_rng(0))
            seen = target.record(uvloop.run(openloop.send(load, moments)))
            used = target.cpu_seconds(pids) - used
            return (seen, used), used

        found = quiet.least_disturbed(measure)
        others.append(found.others)
        return found.result

    loop(CALLERS)  # warm
    full, size = loop(CALLERS)
    one, _ = loop(1)
    missed, size_missed = loop(CALLERS, cached=True, images=int(1.5 * seconds / full.each))
    hits, _ = loop(CALLERS, cached=True)
    seldom = offered(SELDOM / full.each)
    over = offered(OVER / full.each)
    each_redis, trip = asking_redis()
    warm, times = model
    raw = Costs(
        items=items,
        sizes=tuple(times),
        compute=tuple(times.values()),
        request=0.0,
        miss=0.0,
        hit=hits.each,
        refusal=0.0,
        turn=0.0,
        wake=0.0,
        network=0.0,
        proxy=0.0,
        item=item,
        batched=warm.batched,
        gains=size > INLINE_SECONDS / item,  # measured by the server at its start; it differs from start to start
        value_bytes=warm.layout.value_bytes,
        redis=each_redis,
        round_trip=trip,
    )
    request = full.each - items * raw.batch(round(size)) / round(size)
    alone = request + raw.batch(items)
    seen, used = seldom
    turn = max(0.0, one.cpu_each - alone)
    wake = max(0.0, used / len(seen.due) - alone - turn)
    above, spent = over
    good = int((above.status == 200).sum())
    costs = raw.as_json() | {
        "request": request,
        "miss": missed.each - items * raw.batch(round(size_missed)) / round(size_missed),
        "turn": turn,
        "wake": wake,
        "network": max(0.0, seen.percentile(50) - alone - turn - wake),
        "refusal": max(min(request, hits.each), (spent - good * full.each) / max(1, len(above.due) - good)),
    }
    sources = {
        "capacity": 1 / full.each,
        "core_used": full.cpu_each / full.each,
        "items_a_batch": size,
        "one_caller_cpu": one.cpu_each,
        "seldom_p50": seen.percentile(50),
        "seldom_cpu": used / len(seen.due),
        "over_refused": above.refused,
        "others": max(others[1:]),
    }
    return Costs(**costs), sources


def _batches(port: int) -> tuple[float, float]:
    """Batches so far, and items in them."""
    return target.figure(port, "duet_batch_items_count"), target.figure(port, "duet_batch_items_sum")


def _mean(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Items in a batch."""
    return (after[1] - before[1]) / max(1.0, after[0] - before[0])


def check(server: Server, served: Bundle, items: int) -> None:
    """The answer of the server has to be that of the graph."""
    asked = target.ask(items, served.name, None)
    images = np.frombuffer(asked.body[-items * 784 :], np.uint8).reshape(-1, *network.SHAPE)
    server.check(asked, network.answer(served, images))
