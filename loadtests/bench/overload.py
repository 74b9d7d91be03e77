"""Above capacity: what is still answered in time, what is refused, how fast, and what memory does.

An open loop offers multiples of the measured capacity, with a deadline on every request. Latency counts from the moment
a request was due. An answer with status 200 after its deadline is wasted work: there must be none.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import numpy as np
import uvloop
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, network, openloop, report, request, server
from loadtests.bench.openloop import Answers
from loadtests.bench.server import Server

LEVELS = (0.5, 0.8, 1.0, 1.5, 3.0)  # of capacity
ITEMS = 64  # images a request: refusing one costs what HTTP costs, which must be little beside answering one
DEADLINE_MS = 200
SECONDS = 15.0
PAUSE = 1.0  # between levels


@dataclass(frozen=True)
class Level:
    """Rates are a second; times milliseconds from due to received; `lag` is from due to sent: the generator's fault."""

    level: float
    offered: float
    goodput: float
    share_429: float
    share_504: float
    share_failed: float
    late: int
    latest_ms: float
    p50_ms: float
    p99_ms: float
    p50_429_ms: float
    lag_p99_ms: float
    rss_mb: float


def summary(level: float, answers: Answers, seconds: float, deadline: float, rss_mb: float) -> Level:
    """Args: seconds and deadline in seconds."""
    good = answers.latency(200)
    total = len(answers.status)
    other = total - sum(answers.count(status) for status in (200, 429, 504))
    lag = np.array(answers.sent) - np.array(answers.due)
    return Level(
        level=level,
        offered=total / seconds,
        goodput=float((good <= deadline).sum() / seconds),
        share_429=answers.count(429) / total,
        share_504=answers.count(504) / total,
        share_failed=other / total,
        late=int((good > deadline).sum()),
        latest_ms=1000 * float(good.max(initial=0)),
        p50_ms=percentile_ms(good, 50),
        p99_ms=percentile_ms(good, 99),
        p50_429_ms=percentile_ms(answers.latency(429), 50),
        lag_p99_ms=percentile_ms(lag, 99),
        rss_mb=rss_mb,
    )


def percentile_ms(seconds: np.ndarray, percent: float) -> float:
    return 1000 * float(np.percentile(seconds, percent)) if len(seconds) else 0.0


@contextlib.asynccontextmanager
async def watched(target: Server, every: float) -> AsyncIterator[list[tuple[float, float]]]:
    """(seconds since now, MB of the worker's memory) while the block runs."""
    begin, samples = time.monotonic(), []
    worker = target.worker

    async def watch() -> None:
        while True:
            samples.append((time.monotonic() - begin, worker.memory_info().rss / 1e6))
            await asyncio.sleep(every)

    watcher = asyncio.create_task(watch())
    try:
        yield samples
    finally:
        watcher.cancel()


def figure(levels: list[Level], rss: list[tuple[float, float]], capacity: float) -> Figure:
    picture = Figure(figsize=(9, 9), layout="constrained")
    rates, latency, memory = picture.subplots(3)
    x = [level.level for level in levels]
    rates.plot(x, [level.offered for level in levels], "o--", label="offered", color="tab:grey")
    rates.plot(x, [level.goodput for level in levels], "o-", label="answered in time")
    rates.axhline(capacity, linestyle=":", color="black", label="capacity (closed loop)")
    rates.set(ylabel="requests per second", xlabel="offered load / capacity", ylim=0)
    rates.legend()
    latency.plot(x, [level.p50_ms for level in levels], "o-", label="200, p50")
    latency.plot(x, [level.p99_ms for level in levels], "o-", label="200, p99")
    refused = [level for level in levels if level.share_429]
    latency.plot([level.level for level in refused], [level.p50_429_ms for level in refused], "o-", label="429, p50")
    latency.set(ylabel="ms from scheduled start to answer", xlabel="offered load / capacity", ylim=0)
    latency.legend()
    memory.plot(*zip(*rss, strict=True))
    memory.set(ylabel="worker RSS, MB", xlabel="seconds", ylim=0)
    return picture


async def capacity_of(target: Server, raw: bytes, seconds: float) -> float:
    """Requests a second that are answered with 200 when 8 are always under way; the first call warms up."""
    await openloop.saturate(target.port, raw, 8, seconds / 3)
    return await openloop.saturate(target.port, raw, 8, seconds)


async def measure(
    target: Server, raw: bytes, capacity: float, seconds: float
) -> tuple[list[Level], list[tuple[float, float]]]:
    levels = []
    async with watched(target, 0.2) as rss:
        for level in LEVELS:
            answers = await openloop.offer(target.port, raw, level * capacity, seconds)
            levels.append(summary(level, answers, seconds, DEADLINE_MS / 1000, rss[-1][1]))
            await asyncio.sleep(PAUSE)
    return levels, rss


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each load level")
    options = parser.parse_args()
    seconds = 0.3 if options.quick else options.seconds
    home, served = network.ready(options.home)
    about = report.facts(served)
    report.show(about)
    os.sched_setaffinity(0, {cores.LOAD})  # this process is the load
    images = network.digits(ITEMS)
    timeout = {"X-Request-Timeout-Ms": str(DEADLINE_MS)}
    asked = request.v2_binary(served.name, images, **request.NO_STORE, **timeout)

    with server.running("canned", [sys.executable, "-m", "loadtests.bench.canned", "{port}"]) as canned:
        raw = asked.raw(f"127.0.0.1:{canned.port}")
        generator = uvloop.run(capacity_of(canned, raw, min(3.0, seconds)))
    with server.duet(home, f"{served.name}:{served.version}") as duet:
        duet.check(asked, network.answer(served, images))
        raw = asked.raw(f"127.0.0.1:{duet.port}")
        capacity = uvloop.run(capacity_of(duet, raw, min(3.0, seconds)))
        levels, rss = uvloop.run(measure(duet, raw, capacity, seconds))

    out = report.out
    out.print(
        f"{ITEMS} images per request, deadline {DEADLINE_MS} ms; capacity {capacity:,.0f} requests/s "
        f"({ITEMS * capacity:,.0f} images/s); the generator alone reaches {generator:,.0f} requests/s",
        highlight=False,
    )
    table = Table("load", "offered/s", "in time/s", "429", "504", "failed", "late", "latest", "p50", "p99", "429 p50")
    table.add_column("lag p99")
    table.add_column("RSS MB")
    table.title = "open loop, Poisson arrivals; times in ms from the scheduled start"
    for level in levels:
        shares = [f"{share:.1%}" for share in (level.share_429, level.share_504, level.share_failed)]
        times = [level.latest_ms, level.p50_ms, level.p99_ms, level.p50_429_ms, level.lag_p99_ms, level.rss_mb]
        table.add_row(
            f"{level.level:g} x",
            f"{level.offered:,.0f}",
            f"{level.goodput:,.0f}",
            *shares,
            str(level.late),
            *(f"{number:.1f}" for number in times),
        )
    out.print(table)
    late = sum(level.late for level in levels)
    failed = any(level.share_failed for level in levels)
    about |= {"seconds": seconds, "items": ITEMS, "deadline_ms": DEADLINE_MS, "arrivals": "Poisson"}
    results = {
        "capacity": capacity,
        "generator_capacity": generator,
        "levels": [asdict(level) for level in levels],
        "rss_mb": rss,
        "late": late,
    }
    report.save(options.out, "overload", about, results, figure(levels, rss, capacity))
    if options.quick:
        return 0
    if late or failed:
        out.print(f"[red]{late} answers after their deadline (allowed: 0); failed requests: {failed}")
    return int(late > 0 or failed)


if __name__ == "__main__":
    sys.exit(main())
