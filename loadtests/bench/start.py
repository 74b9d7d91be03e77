"""How long `duet serve allinone` takes from exec to the first 200 of /readyz, and the memory of its processes then.

    python -m loadtests.bench.start [--rounds 9] [--home HOME]

The home is a fresh one, and the command stores the reference bundles in it once, before the first round. Python's
compiled files are there, as after an install. `--modules N` adds the N modules whose import takes longest.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from loadtests.bench.server import stop

PATIENCE = 120  # seconds until the server must be ready
POLL_SECONDS = 0.01
MEBI = 2**20
DUET = Path(sys.executable).with_name("duet")


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        seconds: from exec to the first 200 of /readyz.
        listening: from exec to the first answer of any status.
        processes: how many there are when ready.
        memory: MiB of all processes, every page once.
        rss: MiB of all processes, added up: a page that two of them share counts twice.
        cpu: seconds of CPU time of all processes.
    """

    seconds: float
    listening: float
    processes: int
    memory: float
    rss: float
    cpu: float


def start(home: Path) -> Start:
    """Start the server, measure, and stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    environment = kept | {"BENTOML_HOME": str(home), "DUET_DRAIN_SECONDS": "0"}
    with (home / "server.log").open("wb") as log:
        begin = time.perf_counter()
        server = subprocess.Popen(
            [DUET, "serve", "allinone", "--port", str(port)],
            env=environment,
            cwd=home,  # whose folder Python would search first
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            listening, ready = _wait(server, port, home)
            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            memory, rss = resident(family), sum(process.memory_info().rss for process in family)
            cpu = sum(sum(process.cpu_times()[:2]) for process in family)
        finally:
            stop(server)
    return Start(
        ready - begin,
        listening - begin,
        len(family),
        memory / MEBI,
        rss / MEBI,
        cpu,
    )


def _wait(server: subprocess.Popen[bytes], port: int, home: Path) -> tuple[float, float]:
    """When the first answer came, and when the first 200."""
    first = 0.0
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end and server.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            connection.close()
            first = first or time.perf_counter()
            if status == 200:
                return first, time.perf_counter()
        time.sleep(POLL_SECONDS)
    sys.exit(f"the server did not become ready; its log ends with:\n{(home / 'server.log').read_text()[-2000:]}")


def resident(family: Sequence[psutil.Process]) -> int:
    """Bytes in memory, every page once.

    The kernel divides an anonymous page among the processes that share it (Pss_Anon). Pages of files it would also
    divide among processes that are none of ours, so of each mapping the process with the most of it counts.
    """
    anonymous = 0
    files: dict[str, int] = {}
    for process in family:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        anonymous += 1024 * int(re.search(r"^Pss_Anon: +(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index]
        mine: dict[str, int] = {}
        for path, pages in _mappings(process.pid):
            mine[path] = mine.get(path, 0) + pages
        for path, pages in mine.items():
            files[path] = max(files.get(path, 0), pages)
    return anonymous + sum(files.values())


def _mappings(pid: int) -> Iterator[tuple[str, int]]:
    """The mappings of files of a process: the path, and how many bytes in memory are the file's own."""
    path, resident = "", 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split(None, 5)
        if not first.endswith(":"):
            path = rest[4] if len(rest) > 4 else ""
        elif first == "Rss:":
            resident = 1024 * int(rest[0])
        elif first == "Anonymous:" and path.startswith("/"):
            yield path, resident - 1024 * int(rest[0])


def imports(count: int) -> list[tuple[str, float]]:
    """The modules whose import takes longest in the service, with everything that they import: milliseconds."""
    command = [sys.executable, "-X", "importtime", "-c", "import services.allinone"]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"BENTOML_HOME": home}
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    rows = re.findall(r"^import time: +\d+ \| +(\d+) \| +(\S+)$", run.stderr, re.MULTILINE)
    longest = sorted(((int(microseconds), name) for microseconds, name in rows), reverse=True)
    return [(name, microseconds / 1000) for microseconds, name in longest[:count]]


def summary(starts: Sequence[Start]) -> dict[str, Any]:
    """Median, least and most of each figure."""
    columns = {name: [asdict(one)[name] for one in starts] for name in asdict(starts[0])}
    return {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in columns.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="starts that are measured")
    parser.add_argument("--home", type=Path, help="BENTOML_HOME with models; default: a fresh one")
    parser.add_argument("--modules", type=int, default=0, help="also list this many modules by their import time")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="duet-start-") as fresh:
        home = options.home or Path(fresh)
        start(home)  # stores the models, and compiles what was not
        starts = [start(home) for _ in range(options.rounds)]
    figures = summary(starts)
    for name, unit in {
        "seconds": "s until ready",
        "listening": "s until it listens",
        "cpu": "s of CPU time",
        "memory": "MiB in all processes, shared pages once",
        "rss": "MiB, the RSS of all processes added up",
        "processes": "processes",
    }.items():
        row = figures[name]
        print(f"{row['median']:8.2f} {unit} (median of {len(starts)}; {row['least']:.2f} to {row['most']:.2f})")
    for name, milliseconds in imports(options.modules):
        print(f"{milliseconds:8.1f} ms to import {name}")
    if options.out:
        options.out.write_text(json.dumps({"rounds": len(starts)} | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
