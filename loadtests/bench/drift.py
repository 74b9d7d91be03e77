"""How the detector of drift does on p-values: false alarms, the time to a right one, and its cost. No server is asked.

By default p-values are simulated: each run has a calibration set of its own, whose p-values are not quite uniform, and
classes whose shares it knows from that set only. Of anomalies 90 % get the smallest p-value, the others are like normal
images. --p-values takes real ones instead, from an .npz file with

    normal, anomalous                 p-values [n], [m] of a scorer
    calibration_size                  of that scorer
    normal_labels, anomalous_labels   predicted classes [n], [m], optional, with
    class_sizes                       of the calibration images [K]

which are drawn from with replacement.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from services.inference.conformal import rank
from services.inference.drift import ALARM, BLOCK, LEVELS, Drift, Events

MODULE = "loadtests.bench.drift"
SIZES = (272, 5000)
CLASSES = 10
SHARES = (0.1, 0.3, 1.0)  # of a stream, that turn to other images
BEFORE = 2048  # normal images before they do
PATIENCE = 20_000  # images after, when a run is given up
CAUGHT = 0.9  # of simulated anomalies
PART = 256  # images a request

out = Console(width=None if sys.stdout.isatty() else 120)

Stream = tuple[list[float], list[int] | None]


@dataclass(frozen=True)
class Source:
    """A scorer with its calibration set, and the images that it is asked about.

    Attributes:
        draw: p-values and classes of so many images, of which each is anomalous with the given probability.
    """

    size: int
    class_sizes: tuple[int, ...]
    draw: Callable[[np.random.Generator, int, float], Stream]

    def drift(self) -> Drift:
        return Drift("simulated", self.size, self.class_sizes)


def simulated(size: int, seed: int) -> Source:
    random = np.random.default_rng([seed, size])
    calibration = np.sort(random.random(size))
    sizes = random.multinomial(size, np.full(CLASSES, 1 / CLASSES))

    def draw(random: np.random.Generator, count: int, share: float) -> Stream:
        scores = random.random(count)
        scores[random.random(count) < CAUGHT * share] = 2  # above all others
        at_least = size - calibration.searchsorted(scores)
        return ((1 + at_least) / (size + 1)).tolist(), random.integers(0, CLASSES, count).tolist()

    return Source(size, tuple(sizes.tolist()), draw)


def real(path: Path) -> Source:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    sizes = tuple(int(n) for n in arrays.get("class_sizes", ()))

    def draw(random: np.random.Generator, count: int, share: float) -> Stream:
        rows = {name: random.integers(0, len(arrays[name]), count) for name in ("normal", "anomalous")}
        strange = random.random(count) < share
        p_values = np.where(strange, arrays["anomalous"][rows["anomalous"]], arrays["normal"][rows["normal"]])
        if not sizes:
            return p_values.tolist(), None
        labels = [arrays[f"{name}_labels"][rows[name]] for name in ("anomalous", "normal")]
        return p_values.tolist(), np.where(strange, *labels).tolist()

    return Source(int(arrays["calibration_size"]), sizes, draw)


def false_alarms(sources: list[Source], images: int) -> dict[str, Any]:
    """What a stream of normal images does to the detector of each source, and to one that tolerates nothing."""
    alarms, strict_alarms, highest = 0, 0, 0.0
    for seed, source in enumerate(sources):
        random = np.random.default_rng([1, seed])
        drift, strict = source.drift(), _Strict(source.size)
        for _ in range(0, images, PART):
            p_values, labels = source.draw(random, PART, 0)
            drift.see(p_values, labels)
            strict.see(p_values)
            highest = max(highest, *drift.evidence().values())
        alarms += drift.alarm_at is not None
        strict_alarms += strict.alarmed
    return {
        "calibration_size": sources[0].size,
        "calibration_sets": len(sources),
        "images": images,
        "alarms": alarms,
        "highest_evidence_log10": highest,
        "alarms_without_tolerance": strict_alarms,
    }


class _Strict:
    """The same bets against rates that are exactly those of uniform p-values."""

    def __init__(self, size: int) -> None:
        ranks = np.array([k for level in LEVELS if (k := rank(level, size))])
        rates = ranks / (size + 1)
        self._edges = (ranks + 0.5) / (size + 1)
        self._events = Events(np.arange(len(ranks) + 1) <= np.arange(len(ranks))[:, None], rates, rates, rates)
        self.alarmed = False

    def see(self, p_values: list[float]) -> None:
        for start in range(0, len(p_values), BLOCK):
            self._events.see(self._edges.searchsorted(p_values[start : start + BLOCK]))
            self.alarmed |= self._events.evidence >= ALARM


def delays(sources: list[Source], share: float) -> dict[str, Any]:
    """Images from the turn of a stream to the alarm; it is looked for every BLOCK images."""
    found = []
    for seed, source in enumerate(sources):
        random, drift = np.random.default_rng([2, seed]), source.drift()
        drift.see(*source.draw(random, BEFORE, 0))
        while drift.alarm_at is None and drift.images < BEFORE + PATIENCE:
            drift.see(*source.draw(random, BLOCK, share))
        found.append(np.inf if drift.alarm_at is None else drift.alarm_at - BEFORE)
    median, most = np.quantile(found, [0.5, 0.9], method="higher").tolist()
    return {
        "calibration_size": sources[0].size,
        "share": share,
        "runs": len(found),
        "median": median if np.isfinite(median) else None,
        "p90": most if np.isfinite(most) else None,
        "without_alarm": int(np.isinf(found).sum()),
    }


def cost(source: Source, images: int) -> dict[str, float]:
    """CPU microseconds an image, in requests of 1 and of 64 images; the least of five rounds."""
    costs = {}
    for count in (1, 64):
        parts = [source.draw(np.random.default_rng(i), count, 0) for i in range(images // count)]
        rounds = []
        for _ in range(5):
            drift = source.drift()
            begin = time.process_time()
            for p_values, labels in parts:
                drift.see(p_values, labels)
            rounds.append(1e6 * (time.process_time() - begin) / images)
        costs[f"images_a_request_{count}"] = min(rounds)
    return costs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog=f"python -m {MODULE}",
    )
    parser.add_argument("--p-values", type=Path, help="an .npz file; default: p-values are simulated")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"), help="folder for the JSON")
    parser.add_argument("--quick", action="store_true", help="a short run that only tests the benchmark")
    chosen = parser.parse_args(arguments)
    logging.getLogger("duet.drift").setLevel(logging.ERROR)  # it would tell of every run
    images, sets, runs = (10_000, 2, 5) if chosen.quick else (1_000_000, 10, 200)

    def sources(size: int, count: int) -> list[Source]:
        return [real(chosen.p_values)] * count if chosen.p_values else [simulated(size, seed) for seed in range(count)]

    sizes = (real(chosen.p_values).size,) if chosen.p_values else SIZES
    results: dict[str, Any] = {
        "command": " ".join(["python -m", MODULE, *(sys.argv[1:] if arguments is None else arguments)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "alarm_evidence": ALARM,
        "cost_us_an_image": cost(sources(sizes[-1], 1)[0], 6400),
        "false_alarms": [false_alarms(sources(size, sets), images) for size in sizes],
        "delays": [delays(sources(size, runs), share) for size in sizes for share in SHARES],
    }
    table = Table("calibration images", "turns by", "median images to the alarm", "90 %", "no alarm")
    for row in results["delays"]:
        cells = (row["calibration_size"], f"{row['share']:.0%}", row["median"], row["p90"], row["without_alarm"])
        table.add_row(*map(str, cells))
    out.print(table)
    out.print(*results["false_alarms"], results["cost_us_an_image"], sep="\n")
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = "drift_real.json" if chosen.p_values else "drift.json"
    (chosen.out / name).write_text(json.dumps(results, indent=2) + "\n")
    out.print(f"written: {chosen.out / name}")


if __name__ == "__main__":
    main()
