"""Duet beside stock BentoML, bare uvicorn and the raw ONNX Runtime loop: throughput, CPU time and latency, as ratios.

Only the servers of rows that are compared are alive at the same time, and every row of such a group is measured in
every round. Ratios are taken within a round. Reported are the median over the rounds and a 95 % interval of it, by
order statistics. CPU time is that of all processes of a server, user and system, a request. One image a request except
where 64 are said; caches are bypassed (`Cache-Control: no-store`) except where a hit is said.
"""

import argparse
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import crosscheck, floors, network, overhead, report, rivals, rounds, wrk
from loadtests.bench.crosscheck import LocustResult
from loadtests.bench.floors import Rounds
from loadtests.bench.rounds import CONNECTIONS, Case
from services.inference.bundle import Bundle

ROUNDS, SECONDS = 8, 2
LOCUST_USERS, LOCUST_SECONDS = 4, 5


def tree(text: str) -> Path:
    """A source tree, from which Python really takes Duet when it is first in its path."""
    path = Path(text).absolute()
    command = [sys.executable, "-c", "import services, training; print(services.__file__, training.__file__)"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(path)})
    if any(path not in Path(file).parents for file in run.stdout.split() or ["/"]):
        raise argparse.ArgumentTypeError(f"{text}: no source tree of Duet (it needs services/ and training/)")
    return path


def locust_beside(cases: list[Case]) -> LocustResult:
    case = next(case for case in cases if case.name == rivals.BINARY)
    return crosscheck.locust(case.server, case.request, users=LOCUST_USERS, seconds=LOCUST_SECONDS)


def measure(
    home: Path, served: Bundle, count: int, seconds: int, baseline: Path | None, *, warm_up: bool
) -> tuple[Rounds, LocustResult]:
    """The rounds of each group, and Locust's view of one row."""
    found: Rounds = {}
    for group in rivals.GROUPS:
        report.out.print(f"{group.name}: {count} rounds ...", highlight=False)
        with rivals.alive(group, home, served, baseline) as cases:
            for case in cases if warm_up else []:  # BentoML's batcher learns from its first batches
                wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=1)
            found[group.name] = rounds.play(rivals.targets(group, cases, served, seconds), count)
            if group.name == rivals.ONE:
                locust = locust_beside(cases)
    return found, locust


def table(found: Rounds) -> Table:
    """Every row of every group."""
    shown = Table("target", "images/s", "CPU µs a request", "p50 ms", "p99 ms")
    shown.title = f"one server core, {CONNECTIONS} connections, wrk; median and 95 % interval over the rounds"
    for done in found.values():
        for name in done[0]:
            cells = [
                "" if each is None else each.show(form)
                for what, form in (("images_per_second", ",.0f"), ("cpu_us", ",.0f"), ("p50_ms", ".2f"))
                for each in [rounds.across(done, name, what)]
            ]
            tail = rounds.across(done, name, "p99_ms")
            shown.add_row(name, *cells, "" if tail is None else f"{tail.median:.2f}")
        shown.add_section()
    return shown


def summary(found: Rounds) -> dict[str, Any]:
    """Medians by row; a row that several groups have is taken from the first one."""
    first: dict[str, str] = {}
    for group, done in found.items():
        for name in done[0]:
            first.setdefault(name, group)

    def medians(what: str) -> dict[str, float]:
        values = {name: rounds.across(found[group], name, what) for name, group in first.items()}
        return {name: value.median for name, value in values.items() if value is not None}

    p50, p99 = medians("p50_ms"), medians("p99_ms")
    intervals = {
        group: {
            name: {what: asdict(each) for what in asdict(done[0][name]) if (each := rounds.across(done, name, what))}
            for name in done[0]
        }
        for group, done in found.items()
    }
    return {
        "images_per_second": medians("images_per_second"),
        "cpu_us": medians("cpu_us"),
        "latency": {name: {"p50_ms": p50[name], "p99_ms": p99[name]} for name in p50},
        "intervals": intervals,
        "rounds_detail": {
            group: [{name: asdict(figures) for name, figures in each.items()} for each in done]
            for group, done in found.items()
        },
    }


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
    parser.add_argument("--baseline", type=tree, help="source tree of a second Duet, to be compared with")
    options = parser.parse_args()
    count, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    wrk_version = wrk.require()
    home, served = network.ready(options.home)
    about = report.facts(served)
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": CONNECTIONS, "rounds": count, "seconds": seconds}
    report.show(about)

    found, locust = measure(home, served, count, seconds, options.baseline, warm_up=not options.quick)
    results = summary(found) | {"ratios": floors.judge(found), "locust": asdict(locust) | {"users": LOCUST_USERS}}
    report.out.print(table(found), floors.table(results["ratios"], judged=not options.quick))
    if options.baseline is not None:
        compared = floors.beside_baseline(found)
        results["baseline"] = report.revision(options.baseline) | {"ratios": compared}
        report.out.print(floors.baseline_table(compared))
    report.out.print(
        f"cross-check: Locust's FastHttpUser, {LOCUST_USERS} users on {rivals.BINARY}: "
        f"{locust.requests_per_second:,.0f} requests/s, p50 {locust.p50_ms:g} ms, {locust.failures} failures "
        "(Locust itself is the limit)",
        highlight=False,
    )
    report.save(options.out, "bench", about, results, figure(results["images_per_second"]))
    overhead.run(options, home, served)
    return int(not options.quick and not all(row["met"] for row in results["ratios"]))


if __name__ == "__main__":
    sys.exit(main())
