"""What a run found: lines for the terminal, JSON for programs, and a page with plots for people."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.load.outcomes import Outcome, Outcomes
from loadtests.load.questions import World
from loadtests.load.verdict import INVALID, MET, MISSED, Verdict

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
WORDS = {MET: "met", MISSED: "missed", INVALID: "invalid"}
WIDTH, HEIGHT, LEFT, BOTTOM = 760, 220, 60, 30  # of a plot, in pixels
COLOURS = ("#1b6ca8", "#c44e2b", "#4f7f3a", "#7b4b94", "#8a8a8a", "#b8860b")


@dataclass(frozen=True)
class Report:
    """One run.

    Attributes:
        world: what was asked; None on a master, whose workers asked.
        phases: rate at the start of each phase of a profile, and its verdict.
        capacity: requests/s that a search found; None where none was searched.
    """

    host: str
    options: dict[str, Any]
    world: World | None
    outcomes: Outcomes
    verdict: Verdict
    phases: Sequence[tuple[float, Verdict]]
    capacity: float | None


def text(report: Report) -> str:
    """The table and the verdict in lines."""
    head = f"{'route':34}{'due':>8}" + "".join(f"{outcome.value:>12}" for outcome in Outcome)
    head += "".join(f"{_named(percent):>10}" for percent in PERCENTILES)
    lines = ["", head]
    for row in rows(report.outcomes):
        counts = "".join(f"{row['outcomes'][outcome.value]:>12}" for outcome in Outcome)
        times = "".join(f"{row['milliseconds'][_named(percent)]:>10.4g}" for percent in PERCENTILES)
        lines.append(f"{row['route']:34}{row['due']:>8}{counts}{times}")
    lines += ["latencies are of right answers, in milliseconds from the moment at which a request was due", ""]
    for task, found in report.world.pictures.items() if report.world else ():
        lines.append(f"sent for {task}: {found.source}")
    lines += [f"{rate:g} requests/s: {WORDS[verdict.status]}" for rate, verdict in report.phases]
    if report.capacity is not None:
        lines.append(f"capacity: {report.capacity:g} requests/s")
    lines += [str(result) for result in report.verdict.results]
    lines += [f"{WORDS[report.verdict.status]}: {reason}" for reason in report.verdict.reasons]
    if not report.verdict.reasons:
        lines.append(WORDS[report.verdict.status])
    return "\n".join(lines) + "\n"


def rows(outcomes: Outcomes) -> list[dict[str, Any]]:
    """One row a route, the busiest first, and one of all."""
    routes: list[str | None] = [
        *sorted(outcomes.routes(), key=lambda route: -sum(outcomes.count(route).values())),
        None,
    ]
    return [_row(outcomes, route) for route in routes]


def _row(outcomes: Outcomes, route: str | None) -> dict[str, Any]:
    counts = outcomes.count(route)
    histogram = outcomes.histogram(route)
    times = {_named(percent): histogram.get_value_at_percentile(percent) / 1000 for percent in PERCENTILES}
    return {
        "route": route or "all",
        "due": sum(counts.values()),
        "outcomes": {outcome.value: count for outcome, count in counts.items()},
        "milliseconds": times,
    }


def _named(percent: float) -> str:
    return "max" if percent == 100 else f"p{percent:g}"


def document(report: Report) -> dict[str, Any]:
    """Everything that is not a picture."""
    results = [
        {
            "objective": result.objective.name,
            "wanted": result.objective.share,
            "share": result.share,
            "due": result.total,
        }
        for result in report.verdict.results
    ]
    sent = {task: found.source for task, found in report.world.pictures.items()} if report.world else {}
    return {
        "host": report.host,
        "options": report.options,
        "verdict": WORDS[report.verdict.status],
        "reasons": list(report.verdict.reasons),
        "objectives": results,
        "routes": rows(report.outcomes),
        "capacity": report.capacity,
        "phases": [{"rate": rate, "verdict": WORDS[verdict.status]} for rate, verdict in report.phases],
        "sent": sent,
        "by_second": by_second(report.outcomes),
    }


def by_second(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Counts, median and 99th percentile of each second, from the first one in which a request was due."""
    seconds = sorted({second for _, _, second in outcomes.counts})
    found = []
    for second in seconds:
        only = range(second, second + 1)
        histogram = outcomes.histogram(seconds=only)
        counts = {outcome.value: count for outcome, count in outcomes.count(seconds=only).items()}
        times = {
            name: histogram.get_value_at_percentile(percent) / 1000 for name, percent in (("p50", 50), ("p99", 99))
        }
        found.append({"second": second - seconds[0], "outcomes": counts, "milliseconds": times})
    return found


def write(report: Report, folder: Path) -> None:
    """Write report.json and report.html into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    found = document(report)
    (folder / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "report.html").write_text(page(report, found))


def page(report: Report, found: dict[str, Any]) -> str:
    """One page without scripts or other files."""
    seconds = found["by_second"]
    outcomes = {outcome.value: [each["outcomes"][outcome.value] for each in seconds] for outcome in Outcome}
    seen = {name: counts for name, counts in outcomes.items() if any(counts) or name == Outcome.right}
    times = {name: [each["milliseconds"][name] for each in seconds] for name in ("p50", "p99")}
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Load test</title>"
        "<style>body{font:15px system-ui;margin:2em auto;max-width:60em}pre{overflow:auto}svg{max-width:100%}</style>"
        f"<h1>Load on {html.escape(report.host)}: {found['verdict']}</h1><pre>{html.escape(text(report))}</pre>"
        f"<h2>Requests due in each second, by outcome</h2>{_plot(seen, 'requests')}"
        f"<h2>Latency of right answers</h2>{_plot(times, 'ms')}</html>\n"
    )


def _plot(lines: dict[str, list[float]], unit: str) -> str:
    """Lines over seconds as SVG, with a legend."""
    most = max((max(values, default=0) for values in lines.values()), default=0) or 1
    length = max(len(values) for values in lines.values())
    across, up = (WIDTH - LEFT - 10) / max(1, length - 1), (HEIGHT - BOTTOM - 10) / most
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 20}" role="img" aria-label="{unit} over seconds">']
    for share in (0, 0.5, 1):
        y = HEIGHT - BOTTOM - share * most * up
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="12">{share * most:.3g}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}" font-size="12">0 s</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end" font-size="12">{length - 1} s</text>')
    for index, (name, values) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(
            f"{LEFT + x * across:.1f},{HEIGHT - BOTTOM - value * up:.1f}" for x, value in enumerate(values)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x = LEFT + 110 * index
        parts.append(
            f'<text x="{x}" y="{HEIGHT + 14}" font-size="12" fill="{colour}">{html.escape(name)}, {unit}</text>'
        )
    return "".join([*parts, "</svg>"])
