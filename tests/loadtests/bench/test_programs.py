"""Each benchmark runs from end to end, shortened, and its report has what makes its numbers worth something."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

FACTS = {"command", "date", "git_revision", "cpu_model", "cores", "versions", "model", "ort_only_us"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed (Debian: util-linux)"),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and load need a core each"),
]
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: apt-get install wrk)")

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed (Debian: apt-get install redis-server)"
)


def bench(module: str, store: Path, out: Path, *options: str) -> None:
    command = [sys.executable, "-m", module, "--quick", "--home", str(store), "--out", str(out), *options]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def report(out: Path, name: str) -> dict[str, Any]:
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    saved: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert saved.keys() >= FACTS
    assert len(saved["model"]["digest"]) == 64
    return saved


@pytest.mark.nightly  # a minute, and its parts have tests of their own
@needs_wrk
def test_side_by_side_and_overhead(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench", model_store, tmp_path)
    saved = report(tmp_path, "bench")
    assert len(saved["ratios"]) == 9
    assert all(ratio["rounds"] for ratio in saved["ratios"])
    assert all(cost > 0 for cost in saved["cpu_us"].values())
    assert saved["cpu_us"].keys() == saved["images_per_second"].keys()
    assert all(rate > 0 for rate in saved["images_per_second"].values())
    assert saved["latency"].keys() < saved["images_per_second"].keys()
    costs = report(tmp_path, "overhead")["costs_us"]
    assert [cost["items"] for cost in costs] == [1, 4, 16, 64, 256, 1, 1, 1, 1]
    assert all(cost["stages"].keys() >= {"parse", "queue", "compute", "encode"} for cost in costs)


@pytest.mark.nightly  # half a minute
@needs_wrk
def test_generate(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.generate", model_store, tmp_path)
    [(name, rows)] = report(tmp_path, "generate")["by_model"].items()
    assert name == "digits-gan"
    alone, asked = rows[:2], rows[2:]
    assert all(row["case"].startswith("the graph") for row in alone)
    assert len(asked) == 3 * 3 + 2 + 1
    assert all(min(row["images_per_second"], row["cpu_us"], *row["ratios"].values()) > 0 for row in rows)


@pytest.mark.nightly  # half a minute
def test_overload(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.overload", model_store, tmp_path)
    saved = report(tmp_path, "overload")
    assert [level["level"] for level in saved["levels"]] == [0.5, 0.8, 1.0, 1.5, 3.0]
    assert saved["generator_capacity"] > 0
    assert saved["levels"][0]["goodput"] > 0
    assert saved["rss_mb"]


def test_a_baseline_without_duet_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.bench", "--quick", "--baseline", str(tmp_path)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 2
    assert "no source tree of Duet" in run.stderr


@needs_wrk
@pytest.mark.nightly
def test_a_baseline_is_measured_in_every_group(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench", model_store, tmp_path, "--baseline", str(ROOT))
    groups = [row["group"] for row in report(tmp_path, "bench")["baseline"]["ratios"]]
    assert groups == ["1 image"] * 2 + ["64 images"] + ["stock BentoML"] * 4


@needs_wrk
@pytest.mark.nightly  # six servers
def test_traces(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.traces", model_store, tmp_path, "--baseline", str(ROOT))
    saved: dict[str, Any] = json.loads((tmp_path / "traces.json").read_text())
    assert saved.keys() >= FACTS
    names = ["the baseline, no traces", "1 %", "100 %", "100 %, no collector", "100 %, a frozen collector"]
    assert list(saved["ratios"]["no traces"]) == names
    assert saved["spans"]["100 %"]["exported"] > saved["spans"]["1 %"]["exported"] > 0
    assert saved["spans"]["no traces"] == {}
    for name in names[-2:]:
        assert saved["spans"][name]["exported"] == 0
        assert saved["spans"][name]["dropped"] > 0


@pytest.mark.nightly
def test_slow_connections(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.slow", model_store, tmp_path)
    saved = report(tmp_path, "slow")
    assert [row["name"] for row in saved["kinds"]] == ["silent", "reads nothing"]
    assert all(row["most_open"] >= saved["plan"]["connections"] for row in saved["kinds"])
    assert all(row["closed_seconds"] < float("inf") and row["stop_seconds"] < float("inf") for row in saved["kinds"])
    assert saved["header"]["status"] == 431
    assert saved["header"]["refused_after"] < 2**20


def test_soak(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.soak", model_store, tmp_path)
    saved = report(tmp_path, "soak")
    assert isinstance(saved["rss_mb_per_hour"], float)
    assert len(saved["by_minute"]) == 3
    assert all(minute["p99_ms"] >= minute["p50_ms"] > 0 for minute in saved["by_minute"])


@pytest.mark.nightly  # its parts have tests of their own
@needs_redis
def test_cache(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.cache", model_store, tmp_path)
    saved = report(tmp_path, "cache")
    assert [cost["items"] for cost in saved["costs_us"]] == [1, 4, 16, 64]
    assert all(cost["bypass"] > cost["hit"] > 0 for cost in saved["costs_us"])
    assert [size["items"] for size in saved["redis_us"]] == [1, 2, 4, 8, 16, 32, 64]
    assert all(pair["new"] > 0 and pair["known"] > 0 for pair in saved["http_ms"])
    assert saved["redis_from_items"].keys() == {"predicted", "measured"}


@pytest.mark.nightly  # two minutes, and tests/e2e/test_stampede.py asks the same of fewer
@needs_redis
def test_stampede(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.stampede", model_store, tmp_path)
    rows = report(tmp_path, "stampede")["rows"]
    assert [row["computed"].count(None) for row in rows] == [0, 0, 0, 0, 0, 0, 1]
    assert all(row["met"] for row in rows)


@pytest.mark.nightly  # its parts have tests of their own
def test_cache_memory(model_store: Path, tmp_path: Path) -> None:
    bench("loadtests.bench.cache_memory", model_store, tmp_path)
    runs = report(tmp_path, "cache_memory")["runs"]
    assert {run["limit_mib"] for run in runs} == {4, 8}
    assert all(run["held_mib"] <= run["limit_mib"] and run["evicted"] > 0 for run in runs)


@pytest.mark.nightly  # a minute of two cores
def test_neighbours(tmp_path: Path, model_store: Path) -> None:
    bench("loadtests.bench.neighbours", model_store, tmp_path)
    saved: dict[str, Any] = json.loads((tmp_path / "neighbours.json").read_text())
    assert saved.keys() >= FACTS
    assert saved["uploads_mib"]["most"] < saved["uploads_mib"]["before"] + 128 + 60
    assert list(saved["beside"]) == ["nothing", "RISE maps", "256 GAN samples"]
    assert list(saved["stalls"]) == ["BYTES in gzip", "floats in V2", "all, 16"]
    assert all(row["livez_max_ms"] > 0 for row in saved["stalls"].values())
