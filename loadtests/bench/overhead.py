"""What Duet adds to a request beside ONNX Runtime, in microseconds.

By stage: `Server-Timing` of every answer, medians; `compute` less ONNX Runtime is the batcher's share of it.
In all: the worker's CPU time (process_cpu_seconds_total on its /metrics) a request, less ONNX Runtime; it holds what no
stage sees: HTTP parsing, the event loop, the kernel's work on the socket. One connection, one request at a time, so
nothing is batched over requests: the dearest case. V2 binary, cache bypassed.
"""

import argparse
import http.client
import os
import re
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import colour, cores, network, rawloop, report, request, server
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

ITEMS = (1, 4, 16, 64, 256)
SIDES = (28, 64, 128, 224)
BATCH = 64  # items that Duet computes at once, at most
STAGES = ("parse", "queue", "compute", "encode")
SECONDS = 2.0  # /metrics counts CPU time in ticks of 10 ms
TIMING = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True)
class Cost:
    """Microseconds a request; `stages` has `compute` without ONNX Runtime, `other` is what no stage sees."""

    image: str
    items: int
    body_bytes: int
    ort: float
    process: float
    overhead: float
    stages: dict[str, float]
    other: float


def cost(target: Server, asked: Request, served: Bundle, seconds: float) -> Cost:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    timings: dict[str, list[float]] = {}
    for _ in range(20):
        ask(connection, asked)
    cpu, requests, end = cpu_seconds(connection), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for stage, milliseconds in TIMING.findall(ask(connection, asked)):
            timings.setdefault(stage, []).append(1000 * float(milliseconds))
        requests += 1
    process = 1e6 * (cpu_seconds(connection) - cpu) / requests
    connection.close()
    batch = min(asked.items, BATCH)
    raw = rawloop.measure(served, batch, seconds / 2)
    ort = 1e6 * raw.cpu * asked.items / batch
    stages = {stage: statistics.median(times) for stage, times in timings.items()}
    stages["compute"] -= 1e6 * raw.median * asked.items / batch
    return Cost(
        image=" x ".join(map(str, served.manifest.image.shape)),
        items=asked.items,
        body_bytes=len(asked.body),
        ort=ort,
        process=process,
        overhead=process - ort,
        stages=stages,
        other=process - ort - sum(stages.values()),
    )


def ask(connection: http.client.HTTPConnection, asked: Request) -> str:
    """The answer's Server-Timing."""
    connection.request("POST", asked.path, asked.body, asked.headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        sys.exit(f"{asked.path} with {asked.items} items answered {answer.status} {body[:300]!r}")
    return answer.headers["Server-Timing"]


def cpu_seconds(connection: http.client.HTTPConnection) -> float:
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("process_cpu_seconds_total"))


def by_items(home: Path, served: Bundle, seconds: float) -> list[Cost]:
    with server.duet(home, f"{served.name}:{served.version}") as duet:
        asked = [request.v2_binary(served.name, network.digits(items), **NO_STORE) for items in ITEMS]
        return [cost(duet, each, served, seconds) for each in asked]


def by_side(seconds: float) -> list[Cost]:
    """Colour images of several sizes, one a request, each size with a graph that costs little."""
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder:
        home = Path(folder, "home")
        bundles = {side: colour.bundle_of(side, Path(folder, str(side))) for side in SIDES}
        for each in bundles.values():
            network.store(each.path, home)
        with server.duet(home, "") as duet:
            random = np.random.default_rng(0)
            return [
                cost(
                    duet,
                    request.v2_binary(each.name, random.integers(0, 256, (1, 3, side, side), np.uint8), **NO_STORE),
                    each,
                    seconds,
                )
                for side, each in bundles.items()
            ]


def figure(costs: list[Cost]) -> Figure:
    picture = Figure(figsize=(9, 5), layout="constrained")
    axes = picture.subplots()
    labels = [f"{each.items} of {each.image}" for each in costs]
    left = np.zeros(len(costs))
    for part in (*STAGES, "other"):
        widths = np.array([each.other if part == "other" else each.stages.get(part, 0.0) for each in costs]).clip(0)
        axes.barh(labels, widths, left=left, label=part)
        left += widths
    axes.set_xlabel("µs per request in addition to ONNX Runtime")
    axes.invert_yaxis()
    axes.legend()
    return picture


def run(options: argparse.Namespace, home: Path, served: Bundle) -> None:
    seconds = 0.2 if options.quick else SECONDS
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.LOAD})  # this process asks
    try:
        costs = by_items(home, served, seconds) + by_side(seconds)
    finally:
        os.sched_setaffinity(0, everywhere)
    table = Table("image", "items", "ORT", "process", "overhead", *STAGES, "other", title="µs per request, V2 binary")
    for each in costs:
        numbers = [each.ort, each.process, each.overhead, *(each.stages.get(stage, 0) for stage in STAGES), each.other]
        table.add_row(each.image, str(each.items), *(f"{number:,.0f}" for number in numbers))
    report.out.print(table)
    about = report.facts(served) | {"seconds": seconds, "connections": 1}
    report.save(options.out, "overhead", about, {"costs_us": [asdict(each) for each in costs]}, figure(costs))


if __name__ == "__main__":
    chosen = report.options(__doc__).parse_args()
    run(chosen, *network.ready(chosen.home))
