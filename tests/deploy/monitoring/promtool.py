"""Prometheus' own simulator of rules: series that are given go in, and the alerts that fire come out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LABELS = 'namespace="prod",job="duet-classification"'
FIRING = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'


@dataclass(frozen=True)
class Scenario:
    """What Prometheus reads, and what is to fire.

    Attributes:
        name: what it shows.
        series: values by series, in promtool's notation, one an `interval`.
        fires: the alerts that fire, as NAME/SEVERITY, by the minute.
        interval: seconds between two scrapes, and between two evaluations.
        holds: by the minute, queries that have a result.
    """

    name: str
    series: Mapping[str, str]
    fires: Mapping[float, Collection[str]]
    interval: int = 60
    holds: Mapping[float, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def program(name: str, package: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    if (path := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed; Debian's package is {package}")
    return path


def counter(*segments: tuple[float, int], start: float = 0.0) -> str:
    """Values of a counter: increase a step, and number of steps; an increase of -1 is a restart at 0."""
    value, parts = start, [f"{start:.10g}"]
    for increase, steps in segments:
        if increase < 0:
            value, step = 0.0, 0.0
        else:
            value, step = value + increase, increase
        parts.append(f"{value:.10g}+{step:.10g}x{steps - 1}")
        value += step * (steps - 1)
    return " ".join(parts)


def gauge(*segments: tuple[float | str, int]) -> str:
    """Values of a gauge and how often each comes; "_" is no value, "stale" the end of a series."""
    return " ".join(
        f"{value}x{steps}" if value == "_" else f"{value}" if value == "stale" else f"{value}x{steps - 1}"
        for value, steps in segments
    )


def surprises(content: Mapping[str, Any], scenarios: Sequence[Scenario], folder: Path) -> str:
    """What promtool finds to be otherwise than the scenarios say; empty: all goes as they say.

    Raises:
        AssertionError: the rules or the scenarios cannot be read.
    """
    promtool = program("promtool", "prometheus")
    (folder / "rules.yaml").write_text(json.dumps(content))  # JSON is YAML, and written faster
    tests = {
        "rule_files": ["rules.yaml"],
        "tests": [_test(scenario) for scenario in scenarios],
        "evaluation_interval": f"{min(scenario.interval for scenario in scenarios)}s",
    }
    (folder / "tests.yaml").write_text(json.dumps(tests))
    command = [promtool, "test", "rules", "tests.yaml"]
    frugal = os.environ | {"GOMAXPROCS": "1", "GOGC": "800"}
    run = subprocess.run(command, cwd=folder, env=frugal, check=False, capture_output=True, text=True)
    output = run.stdout + run.stderr
    assert run.returncode == 0 or "        got: " in output, output
    return output if run.returncode else ""


def _test(scenario: Scenario) -> dict[str, Any]:
    expected = [
        {
            "expr": FIRING,
            "eval_time": f"{round(60 * minute)}s",
            "exp_samples": [
                {"labels": '{{alertname="{}", severity="{}"}}'.format(*alert.split("/")), "value": 1}
                for alert in alerts
            ],
        }
        for minute, alerts in scenario.fires.items()
    ]
    expected += [
        {
            "expr": f"group({query})",
            "eval_time": f"{round(60 * minute)}s",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for minute, queries in scenario.holds.items()
        for query in queries
    ]
    return {
        "name": scenario.name,
        "interval": f"{scenario.interval}s",
        "input_series": [{"series": name, "values": values} for name, values in scenario.series.items()],
        "promql_expr_test": expected,
    }
