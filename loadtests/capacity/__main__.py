"""How many replicas a load needs.

  python -m loadtests.capacity measure     measure costs and runs on this machine; about three minutes, 2 cores
  python -m loadtests.capacity compare     simulate the measured runs, and show both side by side
  python -m loadtests.capacity plan        replicas, price, spike, loss of a zone and Redis, by load

The services' own batcher, admission and cache run on a virtual clock. HTTP and the model are charged for what they
were measured to take. A plan meets the objectives of deploy/monitoring/slo.yaml, also with one zone lost and with the
empty caches after a change of the model. What lies beyond the measured runs is marked as extrapolated.

Example: what a million requests a second cost on cores that are half as fast and cost 0.02 an hour:

  python -m loadtests.capacity plan --rates 1e6 --speed 0.5 --price 0.02
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from loadtests.bench import report
from loadtests.capacity import autoscaler, objectives, pictures, plan, rows, runs, validity
from loadtests.capacity.costs import Costs
from loadtests.capacity.costs import read as read_costs
from loadtests.capacity.plan import Assumptions
from loadtests.capacity.popularity import Popularity
from loadtests.capacity.runs import Run, Seen
from loadtests.capacity.sensitivity import sensitivity

RESULTS = Path("loadtests/results")
MEASURED = RESULTS / "capacity_measured.json"
RATES = (1e3, 1e4, 1e5, 1e6)
USUAL = Assumptions()


def parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="python -m loadtests.capacity", description=__doc__, formatter_class=form)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "measure costs, and runs that predictions are compared with"
    measure = commands.add_parser("measure", help=about, description=about)
    measure.add_argument("--home", type=Path, help="BENTOML_HOME of the models; default: .duet/bench, made if missing")
    measure.add_argument("--seconds", type=positive, default=6.0, help="length of each run (%(default)g)")
    measure.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON (%(default)s)")
    about = "simulate the measured runs, and show both side by side"
    compare = commands.add_parser("compare", help=about, description=about)
    about = "replicas by load"
    planned = commands.add_parser("plan", help=about, description=about)
    for command in (compare, planned):
        command.add_argument("--measured", type=Path, default=MEASURED, help="what `measure` wrote (%(default)s)")
    planned.add_argument("--rates", type=positive, nargs="+", default=RATES, help="requests/s (1e3 to 1e6)")
    planned.add_argument("--items", type=int, default=1, help="images a request; `measure` has 1 and 16 (%(default)s)")
    planned.add_argument("--objectives", type=Path, default=objectives.FILE, help="a file of objectives (%(default)s)")
    planned.add_argument(
        "--deadline-ms", type=positive, default=1000 * USUAL.deadline, help="that clients allow (%(default)g)"
    )
    planned.add_argument("--price", type=positive, default=USUAL.price, help="of a core for an hour (%(default)g)")
    planned.add_argument("--speed", type=positive, default=1.0, help="of a core, times the measured one (%(default)g)")
    planned.add_argument(
        "--images", type=positive, default=USUAL.popularity.images, help="different images (%(default)g)"
    )
    planned.add_argument(
        "--zipf", type=float, default=USUAL.popularity.exponent, help="exponent of their popularity (%(default)g)"
    )
    planned.add_argument("--no-cache", action="store_true", help="replicas compute every request")
    planned.add_argument("--zones", type=int, default=USUAL.zones, help="one may be lost (%(default)s)")
    planned.add_argument(
        "--start-seconds", type=positive, default=USUAL.start, help="until a new replica is ready (%(default)g)"
    )
    planned.add_argument("--spike", type=positive, default=USUAL.spike, help="times the load (%(default)g)")
    planned.add_argument("--seeds", type=int, default=3, help="of every simulation, for the error bars (%(default)s)")
    planned.add_argument("--seconds", type=positive, default=4.0, help="simulated at each rate (%(default)g)")
    planned.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and picture (%(default)s)")
    return top


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def compare(path: Path, *, show: bool = True) -> list[tuple[Run, Seen, Seen]]:
    """Each run as it was measured and as it is simulated."""
    measured = validity.read(path)
    costs = {items: read_costs(path, items) for items in {run.items for run, _ in measured}}
    with Progress(console=report.out, disable=not show) as progress:
        bar = progress.add_task("simulating the measured runs", total=len(measured))
        found = []
        for run, seen in measured:
            found.append((run, seen, Seen.of(run.simulate(costs[run.items]))))
            progress.advance(bar)
    return found


def comparison(compared: list[tuple[Run, Seen, Seen]]) -> Table:
    table = Table("run", "requests/s", "p50 ms", "simulated", "p99 ms", "simulated", "refused", "simulated", "misses")
    table.title = f"measured, and simulated without having been fitted to it; wanted: within {runs.WANTED:.0%}"
    for run, seen, said in compared:
        times = [f"{value:.2f}" for value in (seen.p50_ms, said.p50_ms, seen.p99_ms, said.p99_ms)]
        shares = [f"{value:.2%}" for value in (seen.refused, said.refused)]
        table.add_row(run.name, f"{run.rate:,.0f}", *times, *shares, ", ".join(runs.misses(seen, said)) or "none")
    return table


def scale(found: list[rows.Row], assumed: Assumptions) -> Table:
    table = Table("requests/s", "replicas", "decided by", f"an hour at {assumed.price:g}", "hits", "90 % of them after")
    names = list(found[0].spikes)
    for head in (*(f"spike, {name}" for name in names), "zone lost", "model changed", "Redis", "status"):
        table.add_column(head)
    table.title = "brackets: lowest and highest of the seeds; times: until the objectives are met again"
    for row in found:
        lags = [*(row.spikes[name] for name in names), row.zone, row.changed]
        table.add_row(
            f"{row.rate:,.0f}",
            f"{row.replicas:,} ({row.low:,} to {row.high:,})",
            row.reason,
            f"{row.price:,.2f}",
            f"{row.hits:.0%}",
            f"{row.warm_again:,.0f} s",
            *(f"{rows.span(lag.seconds)} s, {max(lag.refused):.1%} refused" for lag in lags),
            str(row.redis.count),
            row.status,
        )
    return table


def make_plan(options: argparse.Namespace) -> None:
    """Simulate, print and write a plan.

    Raises:
        ValueError: an option, or a file, cannot be used.
    """
    costs: Costs = read_costs(options.measured, options.items)
    goals = objectives.read(options.objectives)
    assumed = Assumptions(
        deadline=options.deadline_ms / 1000,
        popularity=Popularity(int(options.images), options.zipf),
        cached=not options.no_cache,
        zones=options.zones,
        start=options.start_seconds,
        spike=options.spike,
        price=options.price,
        speed=options.speed,
    )
    if assumed.zones < 1 or options.seeds < 1:
        raise ValueError(f"--zones {assumed.zones} and --seeds {options.seeds}: both have to be 1 or more")
    scalers = [autoscaler.read(name) for name in autoscaler.FILES]
    about = report.machine()
    compared = compare(options.measured)
    report.out.print(comparison(compared))
    valid = validity.of([(run, seen) for run, seen, _ in compared], options.items)
    rates = sorted(options.rates)
    with Progress(console=report.out) as progress:
        bar = progress.add_task("one replica", total=len(plan.CACHES) * options.seeds)
        tick = lambda: progress.advance(bar)  # noqa: E731
        replica = plan.measure_replica(costs, goals, assumed, options.seeds, options.seconds, tick)
        bar = progress.add_task("fleets", total=len(rates) * (len(scalers) + 2))
        found = rows.table(rates, costs, goals, assumed, scalers, replica, valid, options.seeds, tick)
        bar = progress.add_task("sensitivity")
        moved = sensitivity(costs, goals, assumed, scalers[0], rates[-1], options.seconds / 3)
        progress.update(bar, completed=100)
    report.out.print(scale(found, assumed))
    for row in found:
        if row.beyond:
            report.out.print(f"{row.rate:,.0f} requests/s: {validity.EXTRAPOLATED}: {', '.join(row.beyond)}")
    results: dict[str, Any] = {
        "comparison": [
            {"run": vars(run), "measured": asdict(seen), "simulated": asdict(said), "misses": runs.misses(seen, said)}
            for run, seen, said in compared
        ],
        "validity": asdict(valid),
        "goals": asdict(goals),
        "assumptions": asdict(assumed),
        "autoscalers": [asdict(scaler) for scaler in scalers],
        "replica": asdict(replica),
        "rows": [asdict(row) | {"status": row.status} for row in found],
        "sensitivity": {name: list(pair) for name, pair in moved.items()},
    }
    name = "capacity" if options.items == 1 else f"capacity_{options.items}_images"
    report.save(options.out, name, about, results, pictures.draw(compared, found, moved))


def main() -> None:
    options = parser().parse_args()
    try:
        if options.command == "measure":
            from loadtests.capacity.measure import NAME, measure  # noqa: PLC0415  # needs what serves, and two cores

            measure(options.home, options.seconds, options.out)
            report.out.print(comparison(compare(options.out / f"{NAME}.json")))
        elif options.command == "compare":
            report.out.print(comparison(compare(options.measured)))
        else:
            make_plan(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
