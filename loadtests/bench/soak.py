"""Steady load for long: does memory grow, does latency drift?

0.7 of the measured capacity, open loop. Memory is the worker's RSS; its slope is a least-squares line after warm-up.
"""

import os
import sys
from dataclasses import asdict, dataclass

import numpy as np
import uvloop
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, network, openloop, report, request, server
from loadtests.bench.overload import ITEMS, capacity_of, percentile_ms, watched
from loadtests.bench.server import Server

LEVEL = 0.7
MINUTES = 30.0
WARM_UP = 0.1  # of the time, left out of the slope


@dataclass(frozen=True)
class Minute:
    """Times in milliseconds from due to received; `failed` counts all that is not status 200."""

    minute: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


def slope(samples: list[tuple[float, float]]) -> float:
    """MB an hour, by least squares over the samples (seconds, MB) after warm-up."""
    seconds, megabytes = np.array(samples).T
    kept = seconds >= WARM_UP * seconds[-1]
    return 3600 * float(np.polynomial.Polynomial.fit(seconds[kept], megabytes[kept], 1).convert().coef[-1])


async def soak(
    target: Server, raw: bytes, rate: float, minutes: float
) -> tuple[list[Minute], list[tuple[float, float]]]:
    parts = max(3, round(minutes))
    seconds = 60 * minutes / parts
    rows = []
    async with watched(target, seconds / 60) as rss:
        for part in range(parts):
            answers = await openloop.offer(target.port, raw, rate, seconds, seed=part)
            good = answers.latency(200)
            failed = len(answers.status) - len(good)
            at = (part + 1) * seconds / 60
            row = Minute(at, len(answers.status), failed, percentile_ms(good, 50), percentile_ms(good, 99))
            rows.append(row)
            report.out.print(
                f"minute {at:.3g}: p50 {row.p50_ms:.2f} ms, p99 {row.p99_ms:.2f} ms, RSS {rss[-1][1]:.1f} MB, "
                f"{failed} of {len(answers.status)} failed",
                highlight=False,
            )
    return rows, rss


def figure(rows: list[Minute], rss: list[tuple[float, float]]) -> Figure:
    picture = Figure(figsize=(9, 7), layout="constrained")
    memory, latency = picture.subplots(2)
    memory.plot([seconds / 60 for seconds, _ in rss], [megabytes for _, megabytes in rss])
    memory.set(ylabel="worker RSS, MB", xlabel="minutes")
    latency.plot([row.minute for row in rows], [row.p50_ms for row in rows], "o-", label="p50")
    latency.plot([row.minute for row in rows], [row.p99_ms for row in rows], "o-", label="p99")
    latency.set(ylabel="ms from scheduled start to answer", xlabel="minutes", ylim=0)
    latency.legend()
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    options = parser.parse_args()
    minutes = 0.05 if options.quick else options.minutes
    home, served = network.ready(options.home)
    about = report.facts(served)
    report.show(about)
    os.sched_setaffinity(0, {cores.LOAD})  # this process is the load
    images = network.digits(ITEMS)
    asked = request.v2_binary(served.name, images, **request.NO_STORE)
    with server.duet(home, f"{served.name}:{served.version}") as duet:
        duet.check(asked, network.answer(served, images))
        raw = asked.raw(f"127.0.0.1:{duet.port}")
        capacity = uvloop.run(capacity_of(duet, raw, 0.5 if options.quick else 3.0))
        rows, rss = uvloop.run(soak(duet, raw, LEVEL * capacity, minutes))

    growth = slope(rss)
    failed = sum(row.failed for row in rows)
    table = Table("minutes", "requests", "failed", "RSS MB, first", "last", "MB/h", "p99 ms, first", "last")
    table.title = f"{LEVEL:g} x capacity ({capacity:,.0f} requests/s of {ITEMS} images)"
    table.add_row(
        f"{minutes:g}",
        f"{sum(row.requests for row in rows):,}",
        str(failed),
        f"{rss[0][1]:.1f}",
        f"{rss[-1][1]:.1f}",
        f"{growth:.2f}",
        f"{rows[0].p99_ms:.2f}",
        f"{rows[-1].p99_ms:.2f}",
    )
    report.out.print(table)
    about |= {"minutes": minutes, "items": ITEMS, "level": LEVEL, "warm_up": WARM_UP}
    results = {
        "capacity": capacity,
        "rss_mb_per_hour": growth,
        "by_minute": [asdict(row) for row in rows],
        "rss_mb": rss,
        "failed": failed,
    }
    report.save(options.out, "soak", about, results, figure(rows, rss))
    return int(failed > 0 and not options.quick)


if __name__ == "__main__":
    sys.exit(main())
