"""What traces cost: throughput, latency and memory without them, at 1 %, at 100 %, and with a collector that fails.

All servers are alive at once, and each is measured in every round; ratios are taken within a round. One image a
request in V2 binary, cache bypassed: the cheapest request, beside which traces cost most. With `--baseline FOLDER` a
server of another source tree, without traces, is measured too.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from loadtests.bench import cores, network, report, request, rounds, server, sink, wrk
from loadtests.bench.__main__ import tree
from loadtests.bench.interval import Interval, interval
from loadtests.bench.request import NO_STORE
from loadtests.bench.rounds import CONNECTIONS, Case, Round
from loadtests.bench.server import Server

OFF, BASELINE = "no traces", "the baseline, no traces"
SHARES = {"1 %": "0.01", "100 %": "1"}
AWAY, FROZEN = "100 %, no collector", "100 %, a frozen collector"
ROUNDS, SECONDS = 8, 2
FIGURES = {"images_per_second": ",.0f", "cpu_us": ",.0f", "p50_ms": ".2f", "p99_ms": ".2f"}
RATIOS = {"images_per_second": "images/s", "cpu_us": "CPU time", "p99_ms": "p99"}


def start(stack: ExitStack, home: Path, tag: str, baseline: Path | None) -> dict[str, Server]:
    """The servers by what they do."""

    def traced(url: str, share: str) -> Server:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_SAMPLER_ARG": share}
        return stack.enter_context(server.duet(home, tag, **settings))

    taking = stack.enter_context(sink.taking())
    found = {OFF: stack.enter_context(server.duet(home, tag))}
    if baseline is not None:
        found[BASELINE] = stack.enter_context(server.duet(home, tag, PYTHONPATH=str(baseline)))
    found |= {name: traced(taking, share) for name, share in SHARES.items()}
    found[AWAY] = traced(stack.enter_context(sink.away()), "1")
    found[FROZEN] = traced(stack.enter_context(sink.frozen()), "1")
    return found


def memory(servers: dict[str, Server]) -> dict[str, float]:
    """MiB that the worker of each holds."""
    return {name: one.worker.memory_info().rss / 2**20 for name, one in servers.items()}


def spans(one: Server) -> dict[str, int]:
    """Spans of a server by outcome."""
    lines = [line for line in httpx.get(f"{one.url}/metrics").text.splitlines() if line.startswith("duet_spans_total{")]
    return {line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines}


def beside(done: list[Round], that: str) -> dict[str, dict[str, Interval]]:
    """Every other row's figures divided by those of one, within each round."""
    return {
        name: {what: interval(rounds.ratios(done, name, that, what)) for what in RATIOS}
        for name in done[0]
        if name != that
    }


def show(results: dict[str, Any], done: list[Round]) -> None:
    table = Table("server", "images/s", "CPU µs", "p50 ms", "p99 ms", "MiB before", "MiB after", "spans")
    table.title = f"one server core, {CONNECTIONS} connections, wrk; median and 95 % interval over the rounds"
    for name in done[0]:
        found = {what: rounds.across(done, name, what) for what in FIGURES}
        figures = ["" if value is None else value.show(FIGURES[what]) for what, value in found.items()]
        mib = [f"{results['memory_mib'][when][name]:.0f}" for when in ("before", "after")]
        table.add_row(name, *figures, *mib, ", ".join(f"{n:,} {how}" for how, n in results["spans"][name].items()))
    report.out.print(table)
    for that, of in results["ratios"].items():
        table = Table(f"divided by: {that}", *RATIOS.values())
        for name, ratios in of.items():
            table.add_row(name, *(Interval(**each).show(".3f") for each in ratios.values()))
        report.out.print(table)


def run(options: argparse.Namespace) -> None:
    home, served = network.ready(options.home)
    about = report.facts(served) | {"connections": CONNECTIONS, "rounds": options.rounds, "seconds": options.seconds}
    about["versions"]["wrk"] = wrk.require()
    report.show(about)
    asked = request.v2_binary(served.name, network.digits(1), **NO_STORE)
    expected = network.answer(served, network.digits(1))
    os.sched_setaffinity(0, {cores.LOAD})  # the collector is in this process
    with ExitStack() as stack:
        servers = start(stack, home, f"{served.name}:{served.version}", options.baseline)
        for one in servers.values():
            one.check(asked, expected)
            wrk.load(one, asked, connections=CONNECTIONS, seconds=1)
        before = memory(servers)
        cases = [Case(name, one, asked) for name, one in servers.items()]
        done = rounds.play({c.name: lambda c=c: rounds.served(c, options.seconds) for c in cases}, options.rounds)
        results: dict[str, Any] = {
            "medians": {
                name: {what: asdict(value) for what in FIGURES if (value := rounds.across(done, name, what))}
                for name in servers
            },
            "ratios": {
                that: {
                    name: {what: asdict(each) for what, each in ratios.items()}
                    for name, ratios in beside(done, that).items()
                }
                for that in (BASELINE, OFF)
                if that in servers
            },
            "memory_mib": {"before": before, "after": memory(servers)},
            "spans": {name: spans(one) for name, one in servers.items()},
            "rounds_detail": [{name: asdict(figures) for name, figures in each.items()} for each in done],
        }
    if options.baseline is not None:
        results["baseline"] = report.revision(options.baseline)
    show(results, done)
    report.save(options.out, "traces", about, results)


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each measurement")
    parser.add_argument("--baseline", type=tree, help="source tree of a Duet to be compared with, without traces")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    run(options)


if __name__ == "__main__":
    sys.exit(main())
