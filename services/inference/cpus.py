"""How many CPUs this process may really use: the container's limit, not the host's count."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_limit(cgroup: Path = CGROUP) -> int:
    """CPUs by affinity and by the CFS quota (cgroup v2 `cpu.max`: microseconds a period, or `max`), at least 1.

    A quota of 1.5 CPUs counts as 1: a second thread would be throttled every other period, and stall the first.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        limit = math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # no cgroup v2 here
        limit = math.inf
    return max(1, math.floor(min(allowed, limit)))
