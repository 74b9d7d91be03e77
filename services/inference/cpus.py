"""How many CPUs this process may use: by the limit of the container or by its request, not by the count of the host."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
KUBERNETES = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container


def cpu_limit(cgroup: Path = CGROUP, environment: Mapping[str, str] = os.environ) -> int:
    """CPUs by affinity, and by the limit of the container, or in Kubernetes by its request if it has none; at least 1.

    A limit of 1.5 CPUs counts as 1: a second thread would be throttled in every other period, and delay the first.
    Without a limit each process of a node could compute on all of its cores at once, which delays all of them. Outside
    Kubernetes the weight of a cgroup is a priority, and says nothing about a number of CPUs.
    """
    allowed: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(cgroup)
    if limit == math.inf and KUBERNETES in environment:
        limit = _request(cgroup)
    return max(1, math.floor(min(allowed, limit)))


def _limit(cgroup: Path) -> float:
    """The CFS quota: of cgroup v2 (`cpu.max`: microseconds in a period, or `max`) or v1 (-1: none)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return int(quota) / int(period) if quota.strip() not in ("max", "-1") else math.inf


def _request(cgroup: Path) -> float:
    """The CPU request that the kubelet gave as `cpu.shares`, 1024 a CPU, which cgroup v2 has as `cpu.weight`.

    Runtimes convert with weight = 10^(L²/612 + 125 L/612 - 7/34), L = log2(shares): runc since 1.3.2, crun since 1.23.
    Older ones give lower weights, which count here as fewer CPUs than were requested.
    """
    try:
        weight = int((cgroup / "cpu.weight").read_text())
        exponent = 612 * (math.log10(weight) + 7 / 34)
        shares = 2 ** ((math.sqrt(125**2 + 4 * exponent) - 125) / 2)
    except (OSError, ValueError):
        try:
            shares = int((cgroup / "cpu" / "cpu.shares").read_text())
        except (OSError, ValueError):
            return math.inf
    return round(shares / 1024, 1)  # the weight is a whole number: 1 CPU came as 100 or 101
