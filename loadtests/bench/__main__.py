"""Duet beside stock BentoML, bare uvicorn and the raw ONNX Runtime loop: requests a second and latency, as ratios.

Every target is measured in every round, so that drift of the machine hits all alike; ratios are taken within a round,
and the median over the rounds is reported. One image a request except where 64 are said; caches are bypassed
(`Cache-Control: no-store`) except where a hit is said.
"""

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import crosscheck, network, overhead, rawloop, report, request, server, wrk
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.server import Server
from loadtests.bench.wrk import Measurement
from services.inference.bundle import Bundle

CONNECTIONS = 16
ROUNDS, SECONDS = 3, 5
LOCUST_USERS, LOCUST_SECONDS = 4, 5

BINARY = "Duet V2 binary"
V2_JSON = "Duet V2 JSON"
NATIVE_JSON = "Duet native JSON"
NATIVE_PNG = "Duet native multipart PNG"
HIT = "Duet V2 binary, cache hit"
BINARY_64 = "Duet V2 binary, 64 images"
STOCK = "stock BentoML JSON"
BARE = "bare uvicorn V2 binary"
BARE_64 = "bare uvicorn V2 binary, 64 images"
RAW = "raw ONNX Runtime loop, batch 1"
RAW_64 = "raw ONNX Runtime loop, batch 64"


@dataclass(frozen=True)
class Case:
    name: str
    server: Server
    request: Request


@dataclass(frozen=True)
class Floor:
    """A ratio that must be met: `value` of one round's images a second and measurements."""

    name: str
    bound: float
    value: Callable[[dict[str, float], dict[str, Measurement]], float]
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def ratio(this: str, that: str, bound: float) -> Floor:
    return Floor(f"{this} / {that}", bound, lambda images, _: images[this] / images[that])


FLOORS = (
    ratio(BINARY, BARE, 0.95),
    ratio(BINARY, STOCK, 10),
    ratio(V2_JSON, STOCK, 6),
    ratio(NATIVE_JSON, STOCK, 4),
    ratio(NATIVE_PNG, STOCK, 3),
    ratio(BINARY_64, RAW_64, 0.9),
    Floor("p99 / p50 of Duet V2 binary", 4, lambda _, found: found[BINARY].p99_ms / found[BINARY].p50_ms, at_most=True),
)


def cases(duet: Server, stock: Server, bare: Server, served: Bundle) -> list[Case]:
    """What is measured by wrk; each was asked once, and answered as the graph does."""
    name = served.name
    one, many = network.digits(1), network.digits(64)
    chosen = [
        Case(BINARY, duet, request.v2_binary(name, one, **NO_STORE)),
        Case(V2_JSON, duet, request.v2_json(name, one, **NO_STORE)),
        Case(NATIVE_JSON, duet, request.native_json(one, **NO_STORE)),
        Case(NATIVE_PNG, duet, request.native_png(one, **NO_STORE)),
        Case(HIT, duet, request.v2_binary(name, one)),
        Case(BINARY_64, duet, request.v2_binary(name, many, **NO_STORE)),
        Case(STOCK, stock, request.bento_json(one)),
        Case(BARE, bare, request.v2_binary(name, one)),
        Case(BARE_64, bare, request.v2_binary(name, many)),
    ]
    expected = network.answer(served, one)
    for case in chosen:
        case.server.check(case.request, expected)
        headers = case.server.check(case.request, expected)  # the second time a cache would know
        wanted = {"duet": "hit" if case.name == HIT else "bypass"}.get(case.server.name, "")
        if not headers.get("x-cache", "").startswith(wanted):
            sys.exit(f"{case.name}: X-Cache is {headers.get('x-cache')!r}, but {wanted!r} is to be measured")
    return chosen


Round = tuple[dict[str, float], dict[str, Measurement]]


def measure(chosen: list[Case], served: Bundle, seconds: int) -> Round:
    """One round: images a second of everything, and latencies of what has a server."""
    found = {
        case.name: wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=seconds) for case in chosen
    }
    images = {case.name: case.request.items * found[case.name].requests_per_second for case in chosen}
    for name, batch in ((RAW, 1), (RAW_64, 64)):
        images[name] = batch / rawloop.measure(served, batch, seconds / 2).mean
    return images, found


def figure(medians: dict[str, float]) -> Figure:
    picture = Figure(figsize=(9, 5), layout="constrained")
    axes = picture.subplots()
    names = sorted(medians, key=medians.__getitem__)
    colours = ["tab:blue" if name.startswith("Duet") else "tab:grey" for name in names]
    bars = axes.barh(names, [medians[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_xlabel("images per second, one core")
    axes.margins(x=0.12)
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each measurement")
    options = parser.parse_args()
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    wrk_version = wrk.require()
    home, served = network.ready(options.home)
    about = report.facts(served)
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": CONNECTIONS, "rounds": rounds, "seconds": seconds}
    report.show(about)

    graph = served.graph_path("classify")
    with ExitStack() as stack:
        duet = stack.enter_context(server.duet(home, f"{served.name}:{served.version}"))
        stock = stack.enter_context(server.stock_bentoml(graph))
        bare = stack.enter_context(server.bare_uvicorn(graph))
        chosen = cases(duet, stock, bare, served)
        for case in [] if options.quick else chosen:  # BentoML's batcher learns from its first batches
            wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=1)
        done = []
        for number in range(rounds):
            report.out.print(f"round {number + 1} of {rounds}")
            done.append(measure(chosen, served, seconds))
        locust = crosscheck.locust(duet, chosen[0].request, users=LOCUST_USERS, seconds=LOCUST_SECONDS)

    medians = {name: statistics.median(images[name] for images, _ in done) for name in done[0][0]}
    latency = {
        name: {key: statistics.median(asdict(found[name])[key] for _, found in done) for key in ("p50_ms", "p99_ms")}
        for name in done[0][1]
    }
    floors = [(floor, [floor.value(*each) for each in done]) for floor in FLOORS]

    table = Table("target", "images/s", "p50 ms", "p99 ms", "/ stock", title="one server core, 16 connections, wrk")
    for name, each in medians.items():
        times = [f"{latency[name][key]:.2f}" for key in ("p50_ms", "p99_ms")] if name in latency else ["", ""]
        table.add_row(name, f"{each:,.0f}", *times, f"{each / medians[STOCK]:.2f}")
    report.out.print(table)
    judged = Table("ratio", "median", "rounds", "floor", "")
    missed = 0
    for floor, values in floors:
        value = statistics.median(values)
        verdict = "not judged" if options.quick else "met" if floor.met(value) else "MISSED"
        missed += verdict == "MISSED"
        bound = f"{'<=' if floor.at_most else '>='} {floor.bound:g}"
        judged.add_row(floor.name, f"{value:.2f}", " ".join(f"{each:.2f}" for each in values), bound, verdict)
    report.out.print(judged)
    report.out.print(
        f"cross-check: Locust's FastHttpUser, {LOCUST_USERS} users on {BINARY}: {locust.requests_per_second:,.0f} "
        f"requests/s, p50 {locust.p50_ms:g} ms, {locust.failures} failures (Locust itself is the limit)",
        highlight=False,
    )
    results = {
        "images_per_second": medians,
        "latency": latency,
        "rounds_detail": [
            {"images_per_second": images, "latency": {k: asdict(v) for k, v in found.items()}} for images, found in done
        ],
        "ratios": [
            {"name": floor.name, "median": statistics.median(values), "rounds": values, "floor": floor.bound}
            | {"at_most": floor.at_most, "met": floor.met(statistics.median(values))}
            for floor, values in floors
        ],
        "locust": asdict(locust) | {"users": LOCUST_USERS},
    }
    report.save(options.out, "bench", about, results, figure(medians))
    overhead.run(options, home, served)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
