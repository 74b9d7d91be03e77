"""Hundreds ask the same at once, of several replicas that share a Redis: how often is it computed?

Cheap: to classify an image. Dear: to explain it by RISE, which runs the classifier 500 times. All connections stand
before the first request is sent. What was computed is read from `duet_batch_items_sum` on every replica's /metrics. In
the last row the replica that computes is killed meanwhile.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil  # type: ignore[import-untyped]
import uvloop
from matplotlib.figure import Figure
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from loadtests.bench import cores, network, report, request, server
from loadtests.bench.redis_server import PASSWORD, Redis
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

REPLICAS, REQUESTS = 3, 500
CHEAP, DEAR = "classify", "rise"  # operations
SURE = 30  # round trips that an item must take: half as many again as a lease needs
HEAD_START = 0.02  # seconds that the others have to begin to wait, before the one that computes is killed

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Answer = tuple[int, bytes]  # status (0: none came) and body
Rush = Callable[[Sequence[int], bytes, int], Coroutine[None, None, list[list[Answer]]]]  # as `stampede`


@dataclass(frozen=True)
class Row:
    """One stampede.

    Attributes:
        answered: requests that were answered with 200, by replica.
        bodies: different bodies among these answers.
        computed: items computed, by replica; None: it was killed.
        each, in_all: bounds on what one replica and what all compute; None: no bound.
        seconds: until the last answer.
    """

    name: str
    requests: int
    answered: list[int]
    bodies: int
    computed: list[int | None]
    each: int | None
    in_all: int | None
    seconds: float

    @property
    def total(self) -> int:
        return sum(filter(None, self.computed))

    @property
    def met(self) -> bool:
        """Within the bounds, all equal, and answered by all but the killed: that one was still computing."""
        share = self.requests // len(self.computed)
        return (
            self.bodies == 1
            and all(
                not count if done is None else count >= share
                for count, done in zip(self.answered, self.computed, strict=True)
            )
            and (self.each is None or all(done is None or done <= self.each for done in self.computed))
            and (self.in_all is None or self.total <= self.in_all)
        )


def computed(port: int, operation: str) -> int:
    """Items for which a server has computed an operation so far."""
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == "duet_batch_items_sum"]
    return int(sum(sample.value for sample in samples if sample.labels["operation"] == operation))


def wait_for_leases(ports: Sequence[int], model: str) -> None:
    """Until all servers are sure that the dear operation is worth a lease, so that one replica of all computes.

    The round trip is measured anew every second; on a busy machine it leaps.
    """

    def sure(port: int) -> bool:
        found = httpx.get(f"http://127.0.0.1:{port}/v2/models/{model}").json()["parameters"]["cache"][DEAR]
        return bool(found["computed_once_in_all"] and found["item_seconds"] > SURE * found["redis_round_trip_seconds"])

    while not all(map(sure, ports)):
        time.sleep(0.5)


async def connected(ports: Sequence[int], requests: int) -> list[list[Connection]]:
    """Connections for so many requests, spread over servers on this host; one list a server."""
    counts = [len(range(i, requests, len(ports))) for i in range(len(ports))]
    return [
        list(await asyncio.gather(*[asyncio.open_connection("127.0.0.1", port) for _ in range(count)]))
        for port, count in zip(ports, counts, strict=True)
    ]


async def send(raw: bytes, connections: list[Connection]) -> list[Answer]:
    """The answers to one request, sent over all connections at once."""

    async def ask(connection: Connection) -> Answer:
        reader, writer = connection
        try:
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            return int(head[9:12]), await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            return 0, b""
        finally:
            writer.close()

    return list(await asyncio.gather(*map(ask, connections)))


async def stampede(ports: Sequence[int], raw: bytes, requests: int) -> list[list[Answer]]:
    """The answers to so many equal requests at once, one list a server."""
    return list(await asyncio.gather(*[send(raw, each) for each in await connected(ports, requests)]))


def strike(pid: int, blow: signal.Signals) -> None:
    """Send a signal to a process and all below it, which have groups of their own."""
    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        process.send_signal(blow)


async def orphaned(
    ports: Sequence[int],
    raw: bytes,
    requests: int,
    computing: Callable[[], bool],
    strike: Callable[[signal.Signals], None],
) -> list[list[Answer]]:
    """As `stampede`, but the first server is asked first, and dies while it computes and the others wait for it.

    `computing` says whether somebody computes; `strike` sends a signal to the first server.
    """
    first, *others = await connected(ports, requests)
    leading = asyncio.create_task(send(raw, first))
    while not computing():  # noqa: ASYNC110  # it is in Redis that this shows
        await asyncio.sleep(0.001)
    strike(signal.SIGSTOP)  # else it might be done before the others have asked
    following = [asyncio.create_task(send(raw, each)) for each in others]
    await asyncio.sleep(HEAD_START)
    strike(signal.SIGKILL)
    return list(await asyncio.gather(leading, *following))


def asks(operation: str, image: np.ndarray, **headers: str) -> Request:
    """The request for an operation on an image uint8 [1,C,H,W]."""
    asked = request.native_json(image, **headers)
    if operation == CHEAP:
        return asked
    return replace(asked, body=orjson.dumps(orjson.loads(asked.body) | {"explanation": operation}))


class Replicas:
    """Equal servers, which stand one stampede after the other, each for an image that nobody has asked about."""

    def __init__(self, servers: Sequence[Server], requests: int) -> None:
        self.servers = servers
        self.ports = [each.port for each in servers]
        self._requests = requests
        self._random = np.random.default_rng()

    def stand(
        self,
        name: str,
        operation: str,
        *,
        each: int | None = None,
        in_all: int | None = None,
        cached: bool = True,
        rush: Rush = stampede,
    ) -> Row:
        image = self._random.integers(0, 256, (1, *network.SHAPE), np.uint8)
        raw = asks(operation, image, **({} if cached else NO_STORE)).raw("127.0.0.1")
        before = [computed(port, operation) for port in self.ports]
        begin = time.monotonic()
        answers = uvloop.run(rush(self.ports, raw, self._requests))
        seconds = time.monotonic() - begin
        now = [None if end.process.poll() is not None else computed(end.port, operation) for end in self.servers]
        return Row(
            name=name,
            requests=self._requests,
            answered=[[status for status, _ in some].count(200) for some in answers],
            bodies=len({body for some in answers for status, body in some if status == 200}),
            computed=[None if after is None else after - old for after, old in zip(now, before, strict=True)],
            each=each,
            in_all=in_all,
            seconds=seconds,
        )


def started(stack: ExitStack, home: Path, served: Bundle, requests: int, **settings: str) -> Replicas:
    """Replicas that run until the stack unwinds; each has answered once, rightly."""
    tag = f"{served.name}:{served.version}"
    servers = [stack.enter_context(server.duet(home, tag, **settings)) for _ in range(REPLICAS)]
    image = network.digits(1)
    for each in servers:
        for operation in (CHEAP, DEAR):
            each.check(asks(operation, image, **NO_STORE), network.answer(served, image))
    return Replicas(servers, requests)


def measure(home: Path, served: Bundle, redis: Redis, requests: int) -> list[Row]:
    # Without a cache the dear operation takes minutes in all.
    settings = {"DUET_REQUEST_TIMEOUT_MS": "300000", "DUET_THREADS": "1"}
    with ExitStack() as stack:
        alone = started(stack, home, served, requests, **settings)
        rows = [
            alone.stand("classify, cache off", CHEAP, cached=False),
            alone.stand("classify, memory", CHEAP, each=1),
            alone.stand("explain, cache off", DEAR, cached=False),
            alone.stand("explain, memory", DEAR, each=1),
        ]
    url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"
    with ExitStack() as stack:
        shared = started(stack, home, served, requests, DUET_REDIS_URL=url, **settings)
        rows.append(shared.stand("classify, memory and Redis", CHEAP, each=1))
        wait_for_leases(shared.ports, served.name)
        rows.append(shared.stand("explain, memory and Redis", DEAR, each=1, in_all=1))
        wait_for_leases(shared.ports, served.name)
        rush = partial(
            orphaned,
            computing=lambda: any(redis.client.scan_iter("duet:*:lease")),
            strike=partial(strike, shared.servers[0].process.pid),
        )
        rows.append(shared.stand("the same, leader killed", DEAR, each=1, rush=rush))
    return rows


def figure(rows: list[Row]) -> Figure:
    picture = Figure(figsize=(9, 4), layout="constrained")
    axes = picture.subplots()
    names = [row.name for row in rows]
    left = np.zeros(len(rows))
    for replica in range(REPLICAS):
        widths = np.array([row.computed[replica] or 0 for row in rows])
        axes.barh(names, widths, left=left, label=f"replica {replica + 1}")
        left += widths
    for row, total in zip(rows, left, strict=True):
        axes.annotate(f" {total:.0f}", (max(total, 1), row.name), va="center")
    axes.set(xscale="symlog", xlabel=f"items computed for {rows[0].requests} equal simultaneous requests (log)")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend()
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="number of simultaneous requests")
    options = parser.parse_args()
    requests = 30 if options.quick else options.requests
    home, served = network.ready(options.home)
    about = report.facts(served)
    report.show(about)
    os.sched_setaffinity(0, {cores.LOAD})
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder, ExitStack() as stack:
        redis = stack.enter_context(contextlib.closing(Redis(Path(folder))))
        rows = measure(home, served, redis, requests)

    table = Table("", "answered", "bodies", "computed by each", "in all", "bound", "seconds", "")
    table.title = f"{requests} equal simultaneous requests, {REPLICAS} replicas on one core"
    for row in rows:
        bound = f"{row.in_all} in all" if row.in_all else f"{row.each} each" if row.each else "none"
        cells = [" ".join("killed" if done is None else str(done) for done in row.computed), str(row.total), bound]
        verdict = "met" if row.met else "[red]MISSED"
        table.add_row(row.name, str(sum(row.answered)), str(row.bodies), *cells, f"{row.seconds:.2f}", verdict)
    report.out.print(table)
    about |= {"replicas": REPLICAS, "requests": requests}
    results = {"rows": [asdict(row) | {"met": row.met} for row in rows]}
    report.save(options.out, "stampede", about, results, figure(rows))
    return int(not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
