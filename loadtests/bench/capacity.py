"""The capacity of each service on one core, by searches in steps: `make bench-capacity`.

    python -m loadtests.bench.capacity [--searches 5] [SERVICE ...]

A ramp shows about where the service is full. Then each search (`--rate search:...` of the load test) raises the rate
in steps of a tenth of that, until an objective of `deploy/monitoring/slo.yaml` is missed. The step before is the
capacity. The service and all its processes have one core, Locust has another one. Requests are those that no cache can
answer (`--tags fresh`), with pictures of the reference models, which an empty store gets. A search that ends because
Locust is too slow says so. Services that are not named keep their figures in the results file.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import cores, report, server
from loadtests.bench.interval import interval
from loadtests.bench.report import out

SECONDS = 4  # of a step
RAMP = (5, 800, 24)  # requests a second at its begin and at its end, and its length in seconds
TENTHS = (4, 13)  # of what the ramp showed: the first and the last step of a search


@dataclass(frozen=True)
class Searched:
    """A service whose capacity is searched.

    Attributes:
        user: the class of users of the locustfile.
        sends: what a request is, for people.
        milliseconds: what the objective of its routes allows.
    """

    user: str
    sends: str
    milliseconds: float


SERVICES = {
    "generation": Searched("GenerationUser", "a grid of one sample, or a path of four", 1000),
    "classification": Searched("ClassificationUser", "a batch of eight pictures", 250),
    "anomaly": Searched("AnomalyUser", "a batch of eight pictures with heat maps", 500),
}


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=f"some of {', '.join(SERVICES)}; default: all")
    parser.add_argument("--searches", type=int, default=5, help="searches of each service (%(default)s)")
    given = parser.parse_args()
    if unknown := set(given.services) - SERVICES.keys():
        parser.error(f"SERVICE: {', '.join(sorted(unknown))}; known are {', '.join(SERVICES)}")
    about = report.machine()
    file = given.out / "capacity.json"
    found: dict[str, Any] = json.loads(file.read_text())["services"] if file.exists() else {}
    with tempfile.TemporaryDirectory() as home, _serve("generation", home) as painter:
        for service in given.services or SERVICES:
            found[service] = _measure(service, home, painter.url, 1 if given.quick else given.searches)
    found = {service: found[service] for service in SERVICES if service in found}
    out.print(_table(found))
    report.save(given.out, "capacity", about, {"seconds_of_a_step": SECONDS, "services": found}, _figure(found))


def _measure(service: str, home: str, painter: str, searches: int) -> dict[str, Any]:
    """A ramp and the searches of one service, each with a server that was just started."""
    searched = SERVICES[service]
    with _serve(service, home) as target:
        about_full = full(_locust(target.url, painter, searched, "ramp:{}:{}:{}".format(*RAMP)), searched.milliseconds)
    step = max(1, round(about_full / 10))
    rate = f"search:{TENTHS[0] * step}:{TENTHS[1] * step}:{step}:{SECONDS}"
    runs = []
    for number in range(searches):
        with _serve(service, home) as target:
            runs.append(result(_locust(target.url, painter, searched, rate)))
        out.print(f"{service}, search {number + 1} of {rate}: {runs[-1]['capacity']:g} requests/s, {runs[-1]['end']}")
    capacities = asdict(interval(run["capacity"] for run in runs))
    return {"sends": searched.sends, "rate": rate, "requests_per_second": capacities, "searches": runs}


def _serve(service: str, home: str) -> contextlib.AbstractContextManager[server.Server]:
    command = [sys.executable, "-m", "training", "serve", service, "--port", "{port}"]
    return server.running(service, command, BENTOML_HOME=home, DUET_DRAIN_SECONDS="0")


def _locust(url: str, painter: str, searched: Searched, rate: str) -> dict[str, Any]:
    """The report of a run of the load test."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
        command += ["--host", url, "--draw-from", painter, "--rate", rate, "--tags", "fresh"]
        command += ["--report", folder, searched.user]
        run = subprocess.run(
            cores.pinned(cores.LOAD, command), cwd=cores.ROOT, check=False, capture_output=True, text=True
        )
        file = Path(folder) / "report.json"
        if run.returncode == 2 or not file.exists():
            sys.exit(f"{searched.user}: Locust ended with status {run.returncode}:\n{run.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def full(found: dict[str, Any], milliseconds: float) -> float:
    """The rate of a ramp in the first second in which requests failed or took longer than the objective allows."""
    first, last, seconds = RAMP
    for each in found["by_second"]:
        counts = each["outcomes"]
        if sum(counts.values()) > counts["right"] or each["milliseconds"]["p99"] > milliseconds:
            return first + (last - first) * min(1.0, each["second"] / seconds)
    return last


def result(found: dict[str, Any]) -> dict[str, Any]:
    """The capacity that a search found, how it ended, and the verdict on each step."""
    verdicts = [phase["verdict"] for phase in found["phases"]]
    if "invalid" in (*verdicts, found["verdict"]):
        end = "Locust was too slow to go on"
    elif "missed" in verdicts:
        end = "an objective was missed"
    else:
        end = "the last step was met"
    return {"capacity": found["capacity"], "end": end, "steps": found["phases"], "reasons": found["reasons"]}


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        "service", "a request", "searches", "median, requests/s", "lowest", "highest", title="Capacity of a core"
    )
    for service, one in found.items():
        capacities = [run["capacity"] for run in one["searches"]]
        table.add_row(
            service,
            one["sends"],
            str(len(capacities)),
            f"{statistics.median(capacities):g}",
            f"{min(capacities):g}",
            f"{max(capacities):g}",
        )
    return table


def _figure(found: dict[str, Any]) -> Figure:
    """Each search as a point, the median as a line."""
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(found.values()):
        capacities = [run["capacity"] for run in one["searches"]]
        middle = statistics.median(capacities)
        axes.plot([middle, middle], [place - 0.3, place + 0.3], color="black", linewidth=1)
        shifts = [0.08 * (number - (len(capacities) - 1) / 2) for number in range(len(capacities))]
        axes.scatter(capacities, [place + shift for shift in shifts], s=18)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_xlim(left=0)
    axes.set_xlabel("capacity of one core, requests/s; each point is a search, the line their median")
    axes.grid(axis="x", alpha=0.3)
    return figure


if __name__ == "__main__":
    main()
