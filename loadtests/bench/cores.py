"""One core for the server and all its processes, another for the load: the first two that this process may use."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER, LOAD = (sorted(os.sched_getaffinity(0)) * 2)[:2]


def require() -> None:
    if SERVER == LOAD:
        sys.exit(f"cores: only core {SERVER} may be used, but server and load need one each; run on 2 cores or more")


def pinned(core: int, command: list[str]) -> list[str]:
    """`command` and every process that it starts, on one core."""
    return ["taskset", "--cpu-list", str(core), *command]
