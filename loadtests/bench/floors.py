"""Ratios that must be met, and the ratios to the same service of an older source tree, which nobody requires."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from loadtests.bench import rivals
from loadtests.bench.interval import interval
from loadtests.bench.rivals import BARE, BARE_64, BASELINE, BINARY, BINARY_64, NATIVE_JSON, NATIVE_PNG, STOCK, V2_JSON
from loadtests.bench.rounds import Round, ratios

Rounds = dict[str, list[Round]]  # by the name of the group
COMPARED = {"images_per_second": "images/s", "cpu_us": "CPU time", "p99_ms": "p99"}


@dataclass(frozen=True)
class Floor:
    """A ratio of two figures of one round; its median over the rounds of a group must be at least the bound."""

    name: str
    group: str
    bound: float
    values: Callable[[list[Round]], list[float]]
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def throughput(this: str, that: str, group: str, bound: float) -> Floor:
    return Floor(f"{this} / {that}", group, bound, lambda rounds: ratios(rounds, this, that))


def cpu_time(this: str, that: str, group: str, bound: float) -> Floor:
    name = f"CPU time a request: {this} / {that}"
    return Floor(name, group, bound, lambda rounds: ratios(rounds, this, that, "cpu_us"), at_most=True)


def tail(rounds: list[Round]) -> list[float]:
    """p99 over p50 of the plain case."""
    return [(each[BINARY].p99_ms or 0) / (each[BINARY].p50_ms or 1) for each in rounds]


FLOORS = (
    throughput(BINARY, BARE, rivals.ONE, 0.95),
    throughput(BINARY, STOCK, rivals.STOCKED, 10),
    throughput(V2_JSON, STOCK, rivals.STOCKED, 6),
    throughput(NATIVE_JSON, STOCK, rivals.STOCKED, 4),
    throughput(NATIVE_PNG, STOCK, rivals.STOCKED, 3),
    throughput(BINARY_64, rivals.RAW_64, rivals.MANY, 0.9),
    Floor("p99 / p50 of Duet V2 binary", rivals.ONE, 4, tail, at_most=True),
    cpu_time(BINARY, BARE, rivals.ONE, 1.05),
    throughput(BINARY_64, BARE_64, rivals.MANY, 0.95),
)


def judge(rounds: Rounds, wanted: Sequence[Floor] = FLOORS) -> list[dict[str, Any]]:
    """The floors of the groups with the median, interval and rounds of their ratios, and whether they are met."""
    rows = []
    for floor in wanted:
        if floor.group not in rounds:
            continue
        values = floor.values(rounds[floor.group])
        found = interval(values)
        row = {"name": floor.name, "group": floor.group, "median": found.median, "low": found.low, "high": found.high}
        row |= {"rounds": values, "floor": floor.bound, "at_most": floor.at_most, "met": floor.met(found.median)}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], *, judged: bool) -> Table:
    shown = Table("ratio within a round", "group", "median", "interval", "floor", "")
    for row in rows:
        verdict = "not judged" if not judged else "met" if row["met"] else "MISSED"
        bound = f"{'<=' if row['at_most'] else '>='} {row['floor']:g}"
        shown.add_row(
            row["name"], row["group"], f"{row['median']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", bound, verdict
        )
    return shown


def beside_baseline(rounds: Rounds) -> list[dict[str, Any]]:
    """Duet over the baseline in each row that both have; several groups may have the same row."""
    rows = []
    for group, done in rounds.items():
        for name in done[0]:
            if name + BASELINE not in done[0]:
                continue
            row: dict[str, Any] = {"name": name, "group": group}
            for what in COMPARED:
                values = ratios(done, name, name + BASELINE, what)
                found = interval(values)
                row[what] = {"median": found.median, "low": found.low, "high": found.high, "rounds": values}
            rows.append(row)
    return rows


def baseline_table(rows: list[dict[str, Any]]) -> Table:
    shown = Table("Duet / baseline, within a round", "group", *COMPARED.values())
    for row in rows:
        cells = ["{median:.3f} [{low:.3f}, {high:.3f}]".format(**row[what]) for what in COMPARED]
        shown.add_row(row["name"], row["group"], *cells)
    return shown
