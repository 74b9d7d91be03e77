"""How many CPUs this process may use: the limit of the container, not the count of the host."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_limit(cgroup: Path = CGROUP) -> int:
    """CPUs by affinity and by the CFS quota (cgroup v2 `cpu.max`: microseconds in a period, or `max`), at least 1.

    A quota of 1.5 CPUs counts as 1: a second thread would be throttled in every other period, and delay the first.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        limit = math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # there is no cgroup v2
        limit = math.inf
    return max(1, math.floor(min(allowed, limit)))
