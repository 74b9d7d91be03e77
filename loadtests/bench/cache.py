"""What the cache is worth: hits against misses, its own cost an item, and when asking Redis pays.

In this process, through `DataPlane.infer`, the classic CNN: the same images with the cache bypassed, known, and new, in
turns; what a miss costs more than a bypass is looking up and keeping. Over HTTP: whole requests to a server with the
demo models. Redis: forced on, without a memory tier, against the same batches computed, by batch size; the size from
which it was faster beside the size that admission by cost predicts. Medians; every kind is measured in every round.
"""

import asyncio
import contextlib
import http.client
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import uvloop
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, faults, network, redis_server, report, request, server
from loadtests.bench.redis_server import PASSWORD, Redis
from loadtests.bench.request import JSON
from loadtests.bench.server import Server
from services.caching.redis import PROBE_SECONDS, PROBES
from services.call import Call
from services.dataplane import DataPlane
from services.inference.bundle import Bundle
from services.inference.classifier import Classifier

ITEMS = (1, 4, 16, 64)
SIZES = (1, 2, 4, 8, 16, 32, 64)
TURN = 256  # items of one kind before those of the next: a busy server's caches are warm for what it does
BOUND = 5.0  # µs an item, of a hit and of what the cache adds to a miss


@dataclass(frozen=True)
class Cost:
    """Of the classic CNN, µs an item in this process."""

    items: int
    bypass: float
    hit: float
    miss: float
    added: float  # a miss less a bypass, of the same turn


@dataclass(frozen=True)
class Pair:
    """Requests to a server, ms; `ratio` is the median of the rounds' ratios."""

    name: str
    known: float
    new: float
    ratio: float


@dataclass(frozen=True)
class Size:
    """A batch of the classic CNN, µs: computed, from Redis, and with Redis where cost admits it."""

    items: int
    bypass: float
    always: float
    auto: float


def images(count: int) -> Iterator[np.ndarray]:
    """Images uint8 [count,1,28,28], never the same ones."""
    random = np.random.default_rng()
    while True:
        yield random.integers(0, 256, (count, *network.SHAPE), np.uint8)


@asynccontextmanager
async def started(home: Path, served: Bundle, **settings: str) -> AsyncIterator[DataPlane]:
    """A data plane in this process."""
    own = {"BENTOML_HOME": str(home), "DUET_MODELS": f"{served.name}:{served.version}", "DUET_THREADS": "1"}
    before = dict(os.environ)
    os.environ.update(own | settings)
    plane = DataPlane(["classification"])
    os.environ.clear()
    os.environ.update(before)
    await plane.start()
    plane.check()
    try:
        yield plane
    finally:
        await plane.stop()


async def infer(plane: DataPlane, batch: np.ndarray, *, cached: bool = True) -> tuple[float, int]:
    """Seconds for one batch, and how many of its items were known."""
    model = plane.select(Classifier, "classify", None)
    call = Call(read_cache=cached, write_cache=cached)
    begin = time.perf_counter()
    await model.infer("classify", {"images": batch}, call)
    return time.perf_counter() - begin, call.hits


async def cost(plane: DataPlane, items: int, seconds: float) -> Cost:
    new = images(items)
    known = next(new)
    await infer(plane, known)
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        batches = list(itertools.islice(new, 2 * max(1, TURN // items)))
        half = len(batches) // 2
        turn = [
            [await infer(plane, batch, cached=False) for batch in batches[:half]],
            [await infer(plane, known) for _ in range(half)],
            [await infer(plane, batch) for batch in batches[half:]],
        ]
        assert [{hits for _, hits in each} for each in turn] == [{0}, {items}, {0}]
        found.append([statistics.median(took for took, _ in each) for each in turn])
    bypass, hit, miss = 1e6 * np.array(found).T / items
    return Cost(items, *(float(np.median(each)) for each in (bypass, hit, miss, miss - bypass)))


async def costs(home: Path, served: Bundle, seconds: float) -> list[Cost]:
    async with started(home, served) as plane:
        return [await cost(plane, items, seconds) for items in ITEMS]


async def sizes(home: Path, served: Bundle, redis: Redis, seconds: float) -> tuple[list[Size], int | None]:
    """By batch size; and the smallest batch for which admission by cost would ask Redis."""
    settings = {"DUET_REDIS_URL": redis_url(redis), "DUET_CACHE_MEMORY_BYTES": "0"}
    found = []
    async with AsyncExitStack() as stack:
        forced = await stack.enter_async_context(started(home, served, DUET_REDIS_ADMISSION="always", **settings))
        by_cost = await stack.enter_async_context(started(home, served, DUET_REDIS_ADMISSION="auto", **settings))
        await asyncio.sleep(PROBES * PROBE_SECONDS)  # what is predicted is measured while nothing else is
        predicted = by_cost.estimate(by_cost.select(Classifier, "classify", None))["classify"].from_items
        for items in SIZES:
            known = next(images(items))
            while (await infer(forced, known))[1] < items:  # noqa: ASYNC110  # it is written behind the answer
                await asyncio.sleep(0.05)
            times: list[tuple[float, float, float]] = []
            end = time.monotonic() + seconds
            while not times or time.monotonic() < end:
                bypass, _ = await infer(forced, known, cached=False)
                always, hits = await infer(forced, known)
                auto, _ = await infer(by_cost, known)
                if hits == items:  # on a busy machine Redis may be given up now and then
                    times.append((bypass, always, auto))
            found.append(Size(items, *(float(each) for each in 1e6 * np.median(times, axis=0))))
        return found, predicted


def redis_url(redis: Redis) -> str:
    return f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"


def measured_from(found: list[Size]) -> int | None:
    """The smallest size from which on Redis was never slower than computing; None: there is none."""
    slower = [size.items for size in found if size.always > size.bypass]
    return next((size.items for size in found if size.items > max(slower, default=0)), None)


Asked = tuple[str, dict[str, str], bytes]  # path, headers, body
Pairs = Iterator[tuple[Asked, Asked]]  # what is known once it was asked, and what is new


def native(path: str, **fields: object) -> Asked:
    return path, JSON, orjson.dumps(fields)


def tensor(model: str, batch: np.ndarray) -> Asked:
    asked = request.v2_binary(model, batch)
    return asked.path, asked.headers, asked.body


def samples(model: str, seed: int, count: int) -> Asked:
    """Images by seed, as a binary tensor."""
    outputs = [{"name": "images", "parameters": {"binary_data": True}}]
    return native(f"/v2/models/{model}/infer", parameters={"seed": seed, "count": count}, outputs=outputs)


def of_images(build: Callable[[np.ndarray], Asked], items: int) -> Pairs:
    new = images(items)
    known = build(next(new))
    return ((known, build(batch)) for batch in new)


def of_seeds(model: str, count: int) -> Pairs:
    seeds = itertools.count(count * 10**6)  # the first of 64 samples would be the one of a request for one
    known = samples(model, next(seeds), count)
    return ((known, samples(model, seed, count)) for seed in seeds)


def partly(model: str, items: int, new: int) -> Pairs:
    """Batches of which all but `new` items are known, and batches of new ones; first the one that makes them known."""
    batches, others = images(items), images(new)
    known = next(batches)
    yield tensor(model, known), tensor(model, next(batches))
    while True:
        yield tensor(model, np.concatenate([known[new:], next(others)])), tensor(model, next(batches))


def cases(classifier: str, vae: str) -> dict[str, tuple[str, Pairs]]:
    """By name: the X-Cache of what is known, and requests."""

    def explained(method: str) -> Callable[[np.ndarray], Asked]:
        return lambda batch: native("/classify", images=batch.tolist(), explanation=method)

    def scored(batch: np.ndarray) -> Asked:
        return native("/score", images=batch.tolist(), heatmap=True)

    return {
        **{f"classify, {items}": ("hit", of_images(partial(tensor, classifier), items)) for items in ITEMS},
        "classify, 64, of which 60 known": ("partial; hits=60/64", partly(classifier, 64, 4)),
        "score with heat map, 1": ("hit", of_images(scored, 1)),
        "score with heat map, 64": ("hit", of_images(scored, 64)),
        "explain by occlusion, 1": ("hit", of_images(explained("occlusion"), 1)),
        "explain by RISE, 1": ("hit", of_images(explained("rise"), 1)),
        **{f"generate by seed, {count}": ("hit", of_seeds(vae, count)) for count in (1, 64)},
    }


def ask(connection: http.client.HTTPConnection, asked: Asked, status: str = "") -> float:
    """Milliseconds for one answer, whose X-Cache begins with `status`."""
    path, headers, body = asked
    begin = time.perf_counter()
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    milliseconds = 1000 * (time.perf_counter() - begin)
    if answer.status != 200 or not answer.headers["X-Cache"].startswith(status):
        sys.exit(f"{path}: status {answer.status}, X-Cache {answer.headers['X-Cache']!r} where {status!r} should be")
    return milliseconds


def over_http(target: Server, classifier: str, vae: str, rounds: int) -> list[Pair]:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    found = []
    for name, (status, pairs) in cases(classifier, vae).items():
        for asked in next(pairs):
            ask(connection, asked)
        times = [
            (ask(connection, known, status), ask(connection, new, "miss"))
            for known, new in itertools.islice(pairs, rounds)
        ]
        hit, miss = np.array(times).T
        found.append(Pair(name, *(float(np.median(each)) for each in (hit, miss, miss / hit))))
    connection.close()
    return found


def figure(spent: list[Cost], pairs: list[Pair], found: list[Size], predicted: int | None) -> Figure:
    picture = Figure(figsize=(9, 9), layout="constrained")
    own, http_ratio, redis = picture.subplots(3)
    x = np.arange(len(spent))
    for offset, (label, values) in enumerate(
        {"a hit": [each.hit for each in spent], "added to a miss": [each.added for each in spent]}.items()
    ):
        own.bar_label(own.bar(x + 0.4 * offset, values, 0.38, label=label), fmt="%.1f")
    own.axhline(BOUND, linestyle=":", color="black", label=f"bound, {BOUND:g} µs")
    own.set_xticks(x + 0.2, [f"{each.items} a request" for each in spent])
    own.set(ylabel="µs per item, classic CNN")
    own.margins(y=0.15)
    own.legend()
    bars = http_ratio.barh([pair.name for pair in pairs], [pair.ratio for pair in pairs])
    http_ratio.bar_label(bars, fmt="%.1f", padding=3)
    http_ratio.set(xscale="log", xlabel="time of new items / time of cached items, over HTTP")
    http_ratio.invert_yaxis()
    http_ratio.margins(x=0.1)
    sizes = [size.items for size in found]
    redis.plot(sizes, [size.bypass for size in found], "o-", label="computed")
    redis.plot(sizes, [size.always for size in found], "o-", label="from Redis, always")
    redis.plot(sizes, [size.auto for size in found], "x--", label="by cost")
    if predicted is not None:
        redis.axvline(predicted, linestyle=":", color="black", label=f"Redis is asked from {predicted} on")
    redis.set(xscale="log", yscale="log", xlabel="images per request, classic CNN", ylabel="µs per request")
    redis.legend()
    return picture


def show(spent: list[Cost], pairs: list[Pair], found: list[Size], predicted: int | None) -> None:
    table = Table("items a request", "bypass", "hit", "miss", "added to a miss", "bypass / hit", "")
    table.title = "classic CNN, µs per item, in process"
    for each in spent:
        numbers = [f"{value:.1f}" for value in (each.bypass, each.hit, each.miss, each.added)]
        verdict = "met" if max(each.hit, each.added) <= BOUND else f"over {BOUND:g} µs"
        table.add_row(str(each.items), *numbers, f"{each.bypass / each.hit:.1f}", verdict)
    report.out.print(table)
    table = Table("", "cached, ms", "new, ms", "new / cached", title="over HTTP, one connection")
    for pair in pairs:
        table.add_row(pair.name, f"{pair.known:.2f}", f"{pair.new:.2f}", f"{pair.ratio:.1f}")
    report.out.print(table)
    table = Table("images a request", "computed", "Redis, always", "by cost", "always / computed")
    table.title = "classic CNN, µs per request, in process, no memory tier"
    for size in found:
        numbers = [f"{value:,.0f}" for value in (size.bypass, size.always, size.auto)]
        table.add_row(str(size.items), *numbers, f"{size.always / size.bypass:.2f}")
    report.out.print(table)
    report.out.print(f"Redis is asked from {predicted} images on; it was faster from {measured_from(found)} on")


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--models", type=Path, help="BENTOML_HOME of the demo models; default: --home, or as in faults")
    options = parser.parse_args()
    seconds, rounds = (0.2, 3) if options.quick else (4.0, 100)
    home, served = network.ready(options.home)
    demo, vae = faults.generator(options.models or options.home)
    about = report.facts(served)
    about["versions"]["redis-server"] = redis_server.require()
    report.show(about)
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder, ExitStack() as stack:
        own = {"BENTOML_HOME": str(demo.absolute()), "DUET_DRAIN_SECONDS": "0", "DUET_THREADS": "1"}
        command = [sys.executable, "-m", "training", "serve", "allinone", "--port", "{port}"]
        with server.running("duet", command, **own) as duet:
            os.sched_setaffinity(0, {cores.LOAD})
            pairs = over_http(duet, network.find(demo).name, vae.name, rounds)
        redis = stack.enter_context(contextlib.closing(Redis(Path(folder))))  # on the load core
        os.sched_setaffinity(0, {cores.SERVER})
        spent = uvloop.run(costs(home.absolute(), served, seconds))
        found, predicted = uvloop.run(sizes(home.absolute(), served, redis, seconds / 2))
    show(spent, pairs, found, predicted)
    about |= {"seconds": seconds, "rounds": rounds, "bound_us": BOUND}
    results = {
        "costs_us": [asdict(each) for each in spent],
        "http_ms": [asdict(pair) for pair in pairs],
        "redis_us": [asdict(size) for size in found],
        "redis_from_items": {"predicted": predicted, "measured": measured_from(found)},
    }
    report.save(options.out, "cache", about, results, figure(spent, pairs, found, predicted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
