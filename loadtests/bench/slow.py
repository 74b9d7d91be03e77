"""Slow connections by the thousand: when each kind is closed, what it costs in memory, and whom it keeps waiting.

Five kinds, one after another, each with a server of its own on one core: all three tasks, the reference models of
MNIST, short bounds. Beside them a normal client classifies, and /livez is asked. The time until all are closed counts
from when the last one was opened to when the server holds none of them. Then as many are opened again, and the server
is stopped by SIGTERM. At last a client sends a header of 96 MB.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, network, report, server, slow_clients
from loadtests.bench.callers import Callers
from loadtests.bench.neighbours import CHEAP, LIVEZ
from loadtests.bench.server import Server
from loadtests.bench.slow_clients import Kind
from services.inference.bundle import load
from services.inference.registry import REFERENCE

DRAIN_SECONDS, GRACEFUL_SECONDS, MARGIN = 1, 5, 10  # the grace period, made up as in deploy/kubernetes
HEADER = 96 * 10**6
SLACK = 1.0  # seconds that closing may take beyond its bound
MEMORY_MB, P99_TIMES = 30, 2
HEADER_BYTES = 2**18  # 64 KiB, and what the system buffers on the way
MODELS = ("mnist-cnn", "mnist-gan", "mnist-scorer")


@dataclass(frozen=True)
class Plan:
    """How many connections there are, and times in seconds.

    Attributes:
        opening: in which the connections are opened.
        bound: of the head and of the request, as the server is set; longer than opening, so that all are open at once.
        alone: of the normal client without them.
        settled: after which memory is read again.
    """

    connections: int = 1000
    opening: float = 2.0
    bound: float = 6.0
    alone: float = 8.0
    settled: float = 3.0


QUICK = Plan(connections=50, opening=0.3, bound=1.5, alone=1.0, settled=0.5)


@dataclass(frozen=True)
class Row:
    """Of one kind; memory is the worker's resident memory.

    Attributes:
        bound: the setting that bounds it.
        most_open: connections of this kind that the server held at once, at most.
        closed_seconds: from when the last one was opened until the server held none; infinite if that took too long.
        stop_seconds: from SIGTERM, sent while as many were open, until the process had ended.
    """

    name: str
    bound: str
    bound_seconds: float
    most_open: int
    closed_seconds: float
    before_mb: float
    most_mb: float
    after_mb: float
    p99_alone_ms: float
    p99_beside_ms: float
    livez_worst_ms: float
    failed: int
    stop_seconds: float

    def judged(self) -> dict[str, bool]:
        """Whether each of its bounds is kept."""
        return {
            "closed": self.closed_seconds <= self.bound_seconds + SLACK,
            "memory": self.most_mb - self.before_mb <= MEMORY_MB,
            "p99": self.p99_beside_ms <= P99_TIMES * self.p99_alone_ms,
            "stop": self.stop_seconds <= DRAIN_SECONDS + GRACEFUL_SECONDS + MARGIN,
            "answers": not self.failed,
        }


def http(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def kinds() -> tuple[Kind, ...]:
    """With an answer of 200 KB; the server knows it after the first time, so that it costs about a millisecond."""
    outputs = [{"name": "images", "parameters": {"binary_data": True}}]
    drawn = {"inputs": [], "parameters": {"seed": 1, "count": 256}, "outputs": outputs}
    large = http("/v2/models/mnist-gan/infer", json.dumps(drawn).encode())
    return slow_clients.kinds(http("/classify", CHEAP.bodies[0]), large)


def serve(home: Path, bound: float) -> contextlib.AbstractContextManager[Server]:
    command = [sys.executable, "-m", "bentoml", "serve", "services.allinone:AllInOne", "--host", "127.0.0.1"]
    command += ["--port", "{port}", "--timeout-graceful-shutdown", str(GRACEFUL_SECONDS)]
    settings = {
        "DUET_THREADS": "1",
        "DUET_DRAIN_SECONDS": str(DRAIN_SECONDS),
        slow_clients.HEAD: str(bound),
        slow_clients.REQUEST: str(int(1000 * bound)),
    }
    return server.running("duet", command, BENTOML_HOME=str(home), **settings)


@contextlib.asynccontextmanager
async def opened(target: Server, kind: Kind, plan: Plan) -> AsyncIterator[None]:
    """The slow connections; all are open when the block begins, and closed after it."""
    clients = await slow_clients.open_all(target.port, kind, plan.connections, plan.opening)
    dripping = asyncio.create_task(slow_clients.drip(clients))
    try:
        yield
    finally:
        dripping.cancel()
        for client in list(clients):
            client.close()


class Watch:
    """The worker's memory in MB and the number of its open files, at first and at most."""

    def __init__(self, target: Server) -> None:
        self._worker = target.worker
        self.before_mb, self.files = self.read()
        self.most_mb, self.most_files = self.before_mb, self.files

    def read(self) -> tuple[float, int]:
        return self._worker.memory_info().rss / 1e6, self._worker.num_fds()

    async def look(self) -> int:
        """How many files are open beyond those of the beginning."""
        megabytes, files = self.read()
        self.most_mb, self.most_files = max(self.most_mb, megabytes), max(self.most_files, files)
        await asyncio.sleep(0.02)
        return files - self.files

    async def go_on(self) -> None:
        while True:
            await self.look()


async def closing(target: Server, kind: Kind, plan: Plan) -> tuple[Watch, float]:
    """Open the connections; the seconds until the server holds none."""
    watch = Watch(target)
    watching = asyncio.create_task(watch.go_on())
    async with opened(target, kind, plan):
        watching.cancel()
        begin = time.monotonic()
        while await watch.look() > 0:
            if time.monotonic() > begin + 3 * plan.bound:
                return watch, float("inf")
        return watch, time.monotonic() - begin


async def stopping(target: Server, kind: Kind, plan: Plan) -> float:
    """Open the connections and send SIGTERM; the seconds until the server has ended."""
    async with opened(target, kind, plan):
        begin = time.monotonic()
        target.process.send_signal(signal.SIGTERM)
        while target.process.poll() is None:
            if time.monotonic() > begin + 60:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.monotonic() - begin


def measure(home: Path, kind: Kind, plan: Plan) -> Row:
    with serve(home, plan.bound) as target:
        with socket.create_connection(("127.0.0.1", target.port)) as first:
            first.sendall(kind.sends)
            if not kind.reads:  # the server knows the answer from here on
                first.recv(1)
        normal = Callers(target.port, CHEAP, plan.alone, pause=0.002).heard()
        seconds = plan.opening + plan.bound + 2
        beside = Callers(target.port, CHEAP, seconds, pause=0.002), Callers(target.port, LIVEZ, seconds, pause=0.01)
        time.sleep(0.5)  # they are connected
        watch, took = uvloop.run(closing(target, kind, plan))
        loaded, livez = (each.heard() for each in beside)
        time.sleep(plan.settled)
        after, _ = watch.read()
        stop = uvloop.run(stopping(target, kind, plan))
    statuses = [item for heard in (normal, loaded, livez) for item in heard.statuses.items()]
    return Row(
        name=kind.name,
        bound=kind.bound,
        bound_seconds=plan.bound,
        most_open=watch.most_files - watch.files,
        closed_seconds=took,
        before_mb=watch.before_mb,
        most_mb=watch.most_mb,
        after_mb=after,
        p99_alone_ms=normal.at(99),
        p99_beside_ms=loaded.at(99),
        livez_worst_ms=livez.at(100),
        failed=sum(count for status, count in statuses if status != "200"),
        stop_seconds=stop,
    )


def header(home: Path, plan: Plan) -> dict[str, float]:
    """A header without an end, and the worker's memory in MB."""
    with serve(home, plan.bound) as target:
        watch = Watch(target)
        found = slow_clients.endless_header(target.port, HEADER)
        after, _ = watch.read()
    return asdict(found) | {"before_mb": watch.before_mb, "after_mb": after}


def table(rows: list[Row]) -> Table:
    memory = ("MB before", "most", "after")
    latency = ("p99 ms alone", "beside", "/livez worst ms")
    shown = Table("kind", "open", "closed s", *memory, *latency, "failed", "SIGTERM s", "missed")
    for row in rows:
        numbers = (row.before_mb, row.most_mb, row.after_mb, row.p99_alone_ms, row.p99_beside_ms, row.livez_worst_ms)
        closed = f"{row.closed_seconds:.2f} (bound {row.bound_seconds:g})"
        missed = ", ".join(name for name, met in row.judged().items() if not met)
        cells = [f"{number:.1f}" for number in numbers]
        stop = f"{row.stop_seconds:.2f}"
        shown.add_row(row.name, str(row.most_open), closed, *cells, str(row.failed), stop, missed)
    return shown


def figure(rows: list[Row]) -> Figure:
    picture = Figure(figsize=(9, 9), layout="constrained")
    closed, memory, latency = picture.subplots(3)
    names = [row.name for row in rows]
    closed.barh(names, [min(row.closed_seconds, 3 * row.bound_seconds) for row in rows])
    closed.axvline(rows[0].bound_seconds + SLACK, linestyle=":", color="black")
    closed.set_xlabel(f"seconds until all are closed; dotted: bound and {SLACK:g} s")
    memory.barh(names, [row.most_mb - row.before_mb for row in rows])
    memory.axvline(MEMORY_MB, linestyle=":", color="black")
    memory.set_xlabel(f"MB of the worker's memory, most less before; dotted: {MEMORY_MB}")
    latency.barh(names, [row.p99_beside_ms / row.p99_alone_ms for row in rows])
    latency.axvline(P99_TIMES, linestyle=":", color="black")
    latency.set_xlabel("p99 of a normal client, beside them / alone")
    for axes in (closed, memory, latency):
        axes.invert_yaxis()
    return picture


def main() -> int:
    options = report.options(__doc__).parse_args()
    plan, chosen = (QUICK, kinds()[::4]) if options.quick else (Plan(), kinds())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of the servers too
    about = report.facts(load(REFERENCE / MODELS[0]))
    report.show(about)
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder:
        home = Path(folder)
        for name in MODELS:
            network.store(REFERENCE / name, home)
        os.sched_setaffinity(0, {cores.LOAD})  # this process and the callers that it starts are the load
        rows = []
        for kind in chosen:
            report.out.print(f"{kind.name}: {plan.connections} connections ...", highlight=False)
            rows.append(measure(home, kind, plan))
        long = header(home, plan)
    kept = long["status"] == 431 and long["refused_after"] <= HEADER_BYTES
    grace = DRAIN_SECONDS + GRACEFUL_SECONDS + MARGIN
    report.out.print(table(rows))
    report.out.print(
        f"grace period {grace} s; a header of {HEADER / 1e6:g} MB: {long['status']} after {long['refused_after']:,} "
        f"bytes, the connection gone after {long['gone_after']:,}; memory {long['before_mb']:.1f} MB before, "
        f"{long['after_mb']:.1f} after",
        highlight=False,
    )
    about |= {"plan": asdict(plan), "grace_seconds": grace}
    results = {"kinds": [asdict(row) | {"met": row.judged()} for row in rows], "header": long | {"met": kept}}
    report.save(options.out, "slow", about, results, figure(rows))
    met = kept and all(all(row.judged().values()) for row in rows)
    return int(not options.quick and not met)


if __name__ == "__main__":
    sys.exit(main())
