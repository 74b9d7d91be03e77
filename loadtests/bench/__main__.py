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
from loadtests.bench.rivals import Group
from loadtests.bench.rounds import CONNECTIONS, Round
from services.inference.bundle import Bundle

ROUNDS, SECONDS = 8, 2
GROUPS = {group.name: group for group in rivals.GROUPS}
LOCUST_USERS, LOCUST_SECONDS = 4, 5


def tree(text: str) -> Path:
    """A source tree, from which Python really takes Duet when it is first in its path."""
    path = Path(text).absolute()
    command = [sys.executable, "-c", "import services, training; print(services.__file__, training.__file__)"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(path)})
    if any(path not in Path(file).parents for file in run.stdout.split() or ["/"]):
        raise argparse.ArgumentTypeError(f"{text}: no source tree of Duet (it needs services/ and training/)")
    return path


def measure(
    group: Group, home: Path, served: Bundle, options: argparse.Namespace
) -> tuple[list[Round], LocustResult | None]:
    """The rounds of a group, and Locust's view of the plain row if the group has it beside bare uvicorn."""
    report.out.print(f"{group.name}: {options.rounds} rounds ...", highlight=False)
    with rivals.alive(group, home, served, options.baseline) as cases:
        for case in [] if options.quick else cases:  # BentoML's batcher learns from its first batches
            wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=1)
        done = rounds.play(rivals.targets(group, cases, served, options.seconds), options.rounds)
        report.out.print(table(done))
        if group.name != rivals.ONE:
            return done, None
        plain = next(case for case in cases if case.name == rivals.BINARY)
        return done, crosscheck.locust(plain.server, plain.request, users=LOCUST_USERS, seconds=LOCUST_SECONDS)


def table(done: list[Round]) -> Table:
    """Every row of a group."""
    shown = Table("target", "images/s", "CPU µs a request", "p50 ms", "p99 ms")
    shown.title = f"one server core, {CONNECTIONS} connections, wrk; median and 95 % interval over the rounds"
    forms = {"images_per_second": ",.0f", "cpu_us": ",.0f", "p50_ms": ".2f", "p99_ms": ".2f"}
    for name in done[0]:
        each = [(rounds.across(done, name, what), form) for what, form in forms.items()]
        shown.add_row(name, *("" if value is None else value.show(form) for value, form in each))
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
    parser.add_argument("--only", choices=GROUPS, help="measure one group; no results are written")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    wrk_version = wrk.require()
    home, served = network.ready(options.home)
    about = report.facts(served)
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": CONNECTIONS, "rounds": options.rounds, "seconds": options.seconds}
    report.show(about)

    found: Rounds = {}
    locust = None
    for name in [options.only] if options.only else GROUPS:
        found[name], seen = measure(GROUPS[name], home, served, options)
        locust = locust or seen
    ratios = floors.judge(found)
    report.out.print(floors.table(ratios, judged=not options.quick))
    results = summary(found) | {"ratios": ratios}
    if options.baseline is not None:
        compared = floors.beside_baseline(found)
        results["baseline"] = report.revision(options.baseline) | {"ratios": compared}
        report.out.print(floors.baseline_table(compared))
    if locust is not None:
        results["locust"] = asdict(locust) | {"users": LOCUST_USERS}
        report.out.print(
            f"cross-check: Locust's FastHttpUser, {LOCUST_USERS} users on {rivals.BINARY}: "
            f"{locust.requests_per_second:,.0f} requests/s, p50 {locust.p50_ms:g} ms, {locust.failures} failures "
            "(Locust itself is the limit)",
            highlight=False,
        )
    missed = not options.quick and not all(row["met"] for row in ratios)
    if options.only:
        return int(missed)
    report.save(options.out, "bench", about, results, figure(results["images_per_second"]))
    overhead.run(options, home, served)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
