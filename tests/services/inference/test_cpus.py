"""CPUs by the files of the container's cgroup."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from services.inference.cpus import cpu_limit
from services.settings import Settings

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


def weight(request: float) -> str:
    """What runc writes for a request in CPUs, as the kubelet gives it: at least 2 shares, 1024 a CPU."""
    shares = math.log2(max(2, int(1024 * request)))
    return str(math.ceil(10 ** ((shares**2 + 125 * shares) / 612 - 7 / 34)))


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000", "cpu.weight": "39"}, 16),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 16),
        ({"cpu.max": "garbage"}, 16),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "cpu/cpu.shares": "2"}, 16),
    ],
)
def test_cpus_are_the_limit_of_the_container_or_the_cores(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert cpu_limit(cgroup(tmp_path, files), {}) == cpus


@pytest.mark.parametrize("limit", ["max 100000", "400000 100000"])
@pytest.mark.parametrize("request_cpus", [0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 8, 32])
def test_a_pod_without_a_limit_has_the_cpus_of_its_request(tmp_path: Path, request_cpus: float, limit: str) -> None:
    files = {"cpu.max": limit, "cpu.weight": weight(request_cpus)}
    expected = min(16, max(1, math.floor(request_cpus))) if limit.startswith("max") else 4
    assert cpu_limit(cgroup(tmp_path, files), KUBERNETES) == expected


@pytest.mark.parametrize(("request_cpus", "linear"), [(0.1, 4), (1, 39), (2, 79), (4, 157)])
def test_an_older_runtime_gives_at_least_one_cpu_and_no_more_than_asked(
    tmp_path: Path, request_cpus: float, linear: int
) -> None:
    files = {"cpu.max": "max 100000", "cpu.weight": str(linear)}
    assert 1 <= cpu_limit(cgroup(tmp_path, files), KUBERNETES) <= max(1, request_cpus)


@pytest.mark.parametrize(("shares", "cpus"), [("2", 1), ("512", 1), ("1024", 1), ("2048", 2), ("garbage", 16)])
def test_a_pod_on_cgroup_v1(tmp_path: Path, shares: str, cpus: int) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "cpu/cpu.shares": shares}
    assert cpu_limit(cgroup(tmp_path, files), KUBERNETES) == cpus


def test_files_that_cannot_be_read_are_no_limit(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path / "none", KUBERNETES) == 16


@pytest.mark.parametrize("text", ["1", "2", "0"])
def test_the_downward_api_gives_whole_cpus(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_THREADS", text)
    assert Settings().threads == int(text)
