"""Faults of Redis, each caused for real while requests come in: what they cost.

One server asks Redis about every request (admission forced, no memory tier): half of the requests are new, half come
again. An open loop sends them before, during and after the fault. Latency during the fault is set against the same
load on a server without Redis; every answer is compared with that server's, byte by byte.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvloop
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, network, redis_server, report, server
from loadtests.bench.causes import FAULTS, HEALTHY, Fault, Proxy, nothing
from loadtests.bench.course import BEFORE, ITEMS, RATE, Client, Course, course
from loadtests.bench.redis_server import PASSWORD, Redis
from services.inference.bundle import Bundle, load

HOME = Path(".duet/bench-digits")
BASE = Fault("no Redis", nothing)
WAITED = 0.040  # seconds: whoever takes longer has waited for Redis in vain, whose timeout is 50 ms


def settings(fault: Fault, redis: Redis, proxy: Proxy) -> dict[str, str]:
    """Of a server that asks Redis about everything."""
    port = proxy.port if fault.proxied else redis.port
    url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    if fault.tls:
        url = f"rediss://:{PASSWORD}@127.0.0.1:{redis.tls_port}/0?ssl_ca_certs={redis.authority}"
    return {
        "DUET_REDIS_URL": url,
        "DUET_REDIS_ADMISSION": fault.admission,
    }


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        failed: requests by their status, other than 200; 0: no answer came.
        differing: answers that are not what a server without Redis answers.
        p50_ms, p99_ms, worst_ms: milliseconds, during the fault.
        waited: requests, before and after it too, that took longer than `WAITED`.
        hits: shares of the requests before, during and after the fault.
        ready: readiness was never lost.
        opened: sides whose breaker was seen open.
        closed_after: seconds from the end of the fault until the breaker was closed; None: it never was.
        log: what the server said.
    """

    fault: str
    requests: int
    failed: dict[int, int]
    differing: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    waited: int
    hits: list[float]
    ready: bool
    opened: list[str]
    closed_after: float | None
    log: list[str]


def row(fault: Fault, seen: Course, expected: dict[int, bytes], log: str) -> Row:
    times = 1000 * np.array([answer.took for answer in seen.phases[1]])
    return Row(
        fault=fault.name,
        requests=len(seen.answers),
        failed=Counter(answer.status for answer in seen.answers if answer.status != 200),
        differing=sum(answer.status == 200 and answer.body != expected[answer.seed] for answer in seen.answers),
        p50_ms=float(np.percentile(times, 50)),
        p99_ms=float(np.percentile(times, 99)),
        worst_ms=float(times.max()),
        waited=sum(answer.took > WAITED for answer in seen.answers),
        hits=[sum(answer.hit for answer in phase) / max(1, len(phase)) for phase in seen.phases],
        ready=seen.watch.ready,
        opened=sorted(seen.watch.opened),
        closed_after=None if seen.closed is None else seen.closed - seen.end,
        log=[line for line in log.splitlines() if "[duet.cache]" in line],
    )


def serve(home: Path, served: Bundle, **settings: str) -> AbstractContextManager[server.Server]:
    tag = f"{served.name}:{served.version}"
    command = [sys.executable, "-m", "training", "serve", "generation", "--port", "{port}", "--models", tag]
    own = {"BENTOML_HOME": str(home.absolute()), "DUET_DRAIN_SECONDS": "0", "DUET_CACHE_MEMORY_BYTES": "0"}
    return server.running("duet", command, **own, **settings)


def measure(fault: Fault, home: Path, served: Bundle, seconds: float) -> tuple[Course, str]:
    """One fault, with a Redis and a server of its own; returns the server's log too."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(contextlib.closing(Redis(folder)))
        proxy = stack.enter_context(contextlib.closing(Proxy(redis.port)))
        cause: AbstractContextManager[object] = fault.cause(redis, proxy)
        if fault.at_start:
            begun = stack.enter_context(ExitStack())
            begun.enter_context(cause)
            cause = begun
        duet = stack.enter_context(serve(home, served, **settings(fault, redis, proxy)))
        before = 0 if fault.at_start else BEFORE
        seen = uvloop.run(course(duet.port, served.name, cause, before=before, during=seconds))
        return seen, duet.log.read_text()


async def computed(port: int, model: str, seeds: set[int]) -> dict[int, bytes]:
    """What a server without Redis answers."""
    client = Client(port, model)
    answers = [await client.ask(seed) for seed in sorted(seeds)]
    client.close()
    return {answer.seed: answer.body for answer in answers}


def generator(home: Path | None) -> tuple[Path, Bundle]:
    """The home to serve from, and its newest VAE; the demo models are trained if there is none."""
    if home is None:
        home = HOME
        if not list(home.glob("models/*-vae/*/manifest.json")):
            report.out.print(f"training the demo models into {home} ...")
            command = [sys.executable, "-m", "training", "train", "--dataset", "digits", "--recipe", "demo"]
            with tempfile.TemporaryDirectory() as runs:
                own = {"BENTOML_HOME": str(home.absolute()), "BENTOML_DO_NOT_TRACK": "True"}
                subprocess.run([*command, "--out", runs], env=os.environ | own, cwd=cores.ROOT, check=True)
    found = sorted(home.glob("models/*-vae/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"--home {home}: no VAE there; leave --home out to have one trained")
    return home, load(found[-1].parent)


def figure(courses: dict[str, Course]) -> Figure:
    columns = 3
    picture = Figure(figsize=(12, 1.7 * -(-len(courses) // columns)), layout="constrained")
    grid = picture.subplots(-(-len(courses) // columns), columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(courses) :]:
        axes.set_axis_off()
    for axes, (name, seen) in zip(grid.flat, courses.items(), strict=False):
        axes.axvspan(0, seen.end - seen.begin, color="tab:red", alpha=0.12, linewidth=0)
        sent = [answer.sent - seen.begin for answer in seen.answers]
        took = [1000 * answer.took for answer in seen.answers]
        colours = ["tab:green" if answer.hit else "tab:blue" for answer in seen.answers]
        axes.scatter(sent, took, s=2, c=colours)
        axes.axhline(50, linestyle=":", linewidth=0.8, color="black")
        axes.set_title(name, fontsize="small")
        axes.set(yscale="log")
    picture.supxlabel("seconds since the fault began (red: during the fault); green: answered by Redis, blue: computed")
    picture.supylabel("ms per request")
    return picture


def show(rows: list[Row], base: Row) -> None:
    table = Table(
        "fault", "requests", "failed", "differ", "+p50", "+p99", "worst", "> 40 ms", "hits", "breaker", "closed"
    )
    table.add_column("log")
    table.title = f"{RATE:g} requests/s of {ITEMS} images; ms during the fault, p50 and p99 above {base.fault}"
    for each in rows:
        closed = "" if not each.opened else "never" if each.closed_after is None else f"{each.closed_after:.1f} s"
        table.add_row(
            each.fault,
            f"{each.requests:,}",
            str(sum(each.failed.values())),
            str(each.differing),
            f"{each.p50_ms - base.p50_ms:+.2f}",
            f"{each.p99_ms - base.p99_ms:+.2f}",
            f"{each.worst_ms:.1f}",
            str(each.waited),
            " ".join(f"{share:.0%}" for share in each.hits),
            ", ".join(each.opened),
            closed,
            str(len(each.log)),
        )
    report.out.print(table)
    report.out.print(
        f"{base.fault}: p50 {base.p50_ms:.2f} ms, p99 {base.p99_ms:.2f} ms, worst {base.worst_ms:.1f} ms. hits: share "
        "of requests answered by Redis before, during and after the fault. > 40 ms: requests in all three periods. "
        "breaker: sides that opened. closed: time from the end of the fault to the closing of the breaker. log: lines",
        highlight=False,
    )


def main() -> int:
    parser = report.options(__doc__)
    options = parser.parse_args()
    version = redis_server.require()
    home, served = generator(options.home)
    about = report.facts(network.find(home))
    about["versions"]["redis-server"] = version
    report.show(about)
    os.sched_setaffinity(0, {cores.LOAD})  # this process is the load, Redis and the proxy
    rows, courses, expected = [], {}, dict[int, bytes]()
    with serve(home, served) as plain:
        for fault in (BASE, *HEALTHY, *FAULTS, BASE):
            seconds = min(fault.seconds, 1.0) if options.quick else fault.seconds
            if fault is BASE:
                seen, log = uvloop.run(course(plain.port, served.name, contextlib.nullcontext(), during=seconds)), ""
            else:
                seen, log = measure(fault, home, served, seconds)
            unknown = {answer.seed for answer in seen.answers} - expected.keys()
            expected |= uvloop.run(computed(plain.port, served.name, unknown))
            rows.append(row(fault, seen, expected, log))
            courses[fault.name] = seen
            report.out.print(
                f"{fault.name}: p50 {rows[-1].p50_ms:.2f} ms, p99 {rows[-1].p99_ms:.2f} ms", highlight=False
            )
    show(rows, min(rows[0], rows[-1], key=lambda each: each.p99_ms))  # the calmer one: what is added is not belittled
    about |= {"asked": f"{served.name}:{served.version}", "items": ITEMS, "rate": RATE}
    report.save(options.out, "cache_faults", about, {"rows": [asdict(each) for each in rows]}, figure(courses))
    bad = [each.fault for each in rows if each.failed or each.differing or not each.ready]
    if bad:
        report.out.print(f"[red]failed or wrong answers, or the server was not ready: {', '.join(bad)}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
