"""Plans: more load never takes fewer replicas, and what was not measured is said to be extrapolated."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.monitoring import objectives as files
from loadtests.bench import cores
from loadtests.capacity import __main__ as program
from loadtests.capacity import objectives, plan, runs, validity
from loadtests.capacity.autoscaler import Autoscaler
from loadtests.capacity.plan import Assumptions, Goals, Replica
from loadtests.capacity.popularity import Popularity
from loadtests.capacity.runs import Run, Seen
from tests.loadtests.capacity.cheap import constant, costs

CPU = Autoscaler("cpu", 2, 10, busy=0.7)
GOALS = Goals(refused=0.001, late=0.25, good=0.99)
ASSUMED = Assumptions(popularity=Popularity(1000, 1.0), cache_bytes=50_000)
rates = st.floats(1, 1e6)
speeds = st.lists(st.floats(10, 1e4), min_size=1, max_size=4).map(tuple)


@given(rates, rates, speeds, speeds, st.integers(1, 5))
def test_more_load_never_takes_fewer_replicas(
    one: float, other: float, warm: tuple[float, ...], cold: tuple[float, ...], zones: int
) -> None:
    replica = Replica(warm, cold)
    less, more = (
        plan.count(rate, replica, costs(), replace(ASSUMED, zones=zones), CPU) for rate in sorted((one, other))
    )
    assert less.replicas <= more.replicas
    assert less.low <= less.replicas <= less.high


def test_each_demand_can_decide() -> None:
    def reason(rate: float, *, cold: float = 100.0, zones: int = 3, scaler: Autoscaler = CPU) -> tuple[str, int]:
        found = plan.count(rate, Replica((100.0,), (cold,)), constant(0.0001), replace(ASSUMED, zones=zones), scaler)
        return found.reason, found.replicas

    assert reason(10) == ("least", 3)
    assert reason(1000) == ("loss of a zone", 15)
    assert reason(1000, zones=1) == ("objectives", 10)
    assert reason(1000, cold=50.0) == ("cold cache", 20)
    assert reason(1000, scaler=replace(CPU, busy=0.001))[0] == "autoscaler"


def test_a_replica_is_found_to_do_what_its_costs_allow() -> None:
    uncached = replace(ASSUMED, cached=False)
    found = plan.measure_replica(constant(0.005), GOALS, uncached, seeds=2, seconds=4.0)
    assert found.cold == found.warm
    assert 160 < found.rate("warm") < 220
    faster = plan.measure_replica(constant(0.005), GOALS, replace(uncached, speed=2.0), seeds=1, seconds=2.0)
    assert faster.rate("warm") == pytest.approx(2 * found.rate("warm"), rel=0.2)


def test_the_goals_are_those_of_the_alerts(tmp_path: Path) -> None:
    assert objectives.read(files.FILE) == Goals(refused=0.001, late=0.25, good=0.99)
    changed = tmp_path / "slo.yaml"
    changed.write_text(files.FILE.read_text().replace("objective: 99.9", "objective: 100"))
    with pytest.raises(ValueError, match=r"slo.yaml:\d+: slos.0.objective"):
        objectives.read(changed)


def test_a_difference_is_missed_when_it_is_larger_than_a_tenth() -> None:
    seen = Seen(100, 10.0, 20.0, 0.1)
    assert runs.misses(seen, replace(seen, p50_ms=10.9, p99_ms=18.1, refused=0.109)) == []
    assert runs.misses(seen, replace(seen, p50_ms=11.1, p99_ms=17.9, refused=0.12)) == ["p50", "p99", "refused"]


def results(folder: Path) -> Path:
    """As `measure` writes them: one replica at 40 requests a second, and three of which one was killed."""
    steady = Run("steady", 1, 0.5, 40.0, 1.0, 0.1, seed=1)
    killed = Run("killed", 1, 0.5, 40.0, 1.0, 0.1, seed=1, killed=0.3, noticed=0.6)
    slow = constant(0.005, request=0.001, miss=0.001, hit=0.001, refusal=0.001)
    content = {
        "costs": {"1": asdict(slow)},
        "runs": [{"run": asdict(run), "measured": asdict(Seen(40, 6.0, 9.0, 0.0))} for run in (steady, killed)],
    }
    file = folder / "measured.json"
    file.write_text(json.dumps(content))
    return file


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "loadtests.capacity", *arguments]
    return subprocess.run(line, cwd=cores.ROOT, capture_output=True, text=True, check=False)


def test_the_range_of_the_measured_runs(tmp_path: Path) -> None:
    valid = validity.of(validity.read(results(tmp_path)), 1)
    assert valid == validity.Validity(items=1, rate=40.0, replicas=3, hits=0.0, deadline=0.1)
    assert valid.beyond(40.0, 3, 0.0, ASSUMED) == []
    beyond = valid.beyond(41.0, 4, 0.5, replace(ASSUMED, deadline=1.0, speed=2.0))
    assert len(beyond) == 5
    assert validity.of([], 1).beyond(1.0, 1, 0.0, ASSUMED)


@pytest.mark.slow
def test_a_plan_says_what_is_extrapolated(tmp_path: Path) -> None:
    options = ["--rates", "20", "500", "--no-cache", "--seeds", "1", "--seconds", "0.1", "--out", str(tmp_path)]
    run = command("plan", "--measured", str(results(tmp_path)), *options)
    assert run.returncode == 0, run.stderr
    assert "500 requests/s: extrapolated: more than 40 requests/s, more than 3 replicas" in run.stdout
    assert "20 requests/s: extrapolated" not in run.stdout.replace("500 requests/s", "")
    written: dict[str, Any] = json.loads((tmp_path / "capacity.json").read_text())
    assert [row["status"] for row in written["rows"]] == ["measured", "extrapolated"]
    assert written["rows"][0]["replicas"] < written["rows"][1]["replicas"]
    assert (tmp_path / "capacity.png").stat().st_size > 10_000
    (quick,) = (entry for entry in written["comparison"] if entry["run"]["kind"] == "steady")
    assert quick["simulated"]["p50_ms"] == pytest.approx(6.0, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--items", "3"], "--items 3: .* has costs of requests with 1 images"),
        (["--measured", "nowhere.json"], "--measured nowhere.json: no (costs|runs)"),
        (["--zones", "0"], "--zones 0"),
        (["--rates", "0"], "0 must be above 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = [] if "--measured" in arguments else ["--measured", str(results(tmp_path))]
    monkeypatch.setattr(sys, "argv", ["capacity", "plan", *measured, *arguments])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)
