"""How the test of drift does: false alarms, the time to right ones, their ends, and its cost. No server is asked.

By proof, for 99.9 % of calibration sets and whatever the strange images look like: while at most the tolerated share of
images is strange, the probability of an alarm within m slices is at most m / 10^8. That one client of 50 is strange, or
that a burst is, is covered where its share of the votes is at most the tolerated one.

By simulation, from fixed seeds: everything that this program prints. Each run has a calibration set of its own, whose
p-values are not quite uniform, and classes whose shares it knows from that set only. Of anomalies 90 % get the smallest
p-value, and the others are like normal images; in the results `all_caught` all get it. With --data, p-values and
classes are also those of the reference scorer of MNIST, for the test images of MNIST and, as anomalies, of
Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.bench.drift_runs import (
    BEFORE,
    BEFORE_SHARE,
    IMAGES,
    PATIENCE,
    bursts,
    ends,
    some_clients,
    two_clients,
)
from loadtests.bench.drift_source import Source, reference, simulated
from services.inference.drift.alarms import HELD
from services.inference.drift.detector import ALARM, TOLERATED, Drift
from services.inference.drift.repeats import REMEMBERED, marks_of
from services.inference.drift.sums import STAKES, Bets, evidence

MODULE = "loadtests.bench.drift"
SIZES = (272, 5000)
TOLERATED_SHARES = (0.0, 0.01, 0.02)
SHARES = (0.1, 0.3, 1.0)  # of a stream, that turn to other images
EACH = (IMAGES, 200)  # images a slice
LASTS = 2000  # slices of a change, in the runs that look for the end of its alarm
PART = 500  # slices that are drawn at once

out = Console(width=None if sys.stdout.isatty() else 120)


class Streams:
    """The sums of many streams at once, each with a calibration set of its own."""

    def __init__(self, sources: list[Source], tolerated: float) -> None:
        events = [source.events(tolerated) for source in sources]
        self.kinds = events[0].kinds
        self._bets = Bets(np.array([each.low for each in events]), np.array([each.high for each in events]))
        self._sums = np.zeros((len(events), len(STAKES), 2, len(events[0].low)))

    def take(self, votes: np.ndarray) -> np.ndarray:
        """Process the votes [S,E] of a slice; returns the evidence [S]."""
        self._sums = np.minimum(self._bets.pays(votes) * (self._sums + 1), 1e100)
        found = evidence(self._sums, self.kinds)
        return np.asarray(sum(found.values()) / len(found))


def votes_of(
    sources: list[Source], random: np.random.Generator, slices: int, images: int, shares: list[float]
) -> Iterator[np.ndarray]:
    """The votes [S,E] of slices with so many images, one stream for each source, with its share of anomalies."""
    cells = np.array([source.cells(share) for source, share in zip(sources, shares, strict=True)])
    classes = np.array([source.classes(share) for source, share in zip(sources, shares, strict=True)])
    for begin in range(0, slices, PART):
        size = (min(PART, slices - begin), len(sources))
        rates = random.multinomial(images, cells, size).cumsum(axis=2)[..., :-1]
        yield from np.concatenate([rates, random.multinomial(images, classes, size)], axis=2) / images


def false_alarms(sources: list[Source], images: int) -> list[dict[str, Any]]:
    """What a tolerated share of anomalies does to each source, in slices of eight images."""
    shares = [share for share in TOLERATED_SHARES for _ in sources]
    streams = sources * len(TOLERATED_SHARES)
    tests = [Streams(streams, TOLERATED), Streams(streams, 0.0)]
    highest = np.zeros((2, len(streams)))
    for votes in votes_of(streams, np.random.default_rng(1), images // IMAGES, IMAGES, shares):
        for row, test in zip(highest, tests, strict=True):
            np.maximum(row, test.take(votes), out=row)
    rows = highest.reshape(2, len(TOLERATED_SHARES), len(sources))
    return [
        {
            "calibration_size": sources[0].size,
            "calibration_sets": len(sources),
            "share": share,
            "images": images,
            "alarms": int((rows[0, index] >= ALARM).sum()),
            "highest_evidence_log10": float(np.log10(rows[0, index].max())),
            "alarms_with_none_tolerated": int((rows[1, index] >= ALARM).sum()),
        }
        for index, share in enumerate(TOLERATED_SHARES)
    ]


def delays(sources: list[Source], share: float, images: int) -> dict[str, Any]:
    """Slices from the turn of a stream to the alarm."""
    random, streams = np.random.default_rng(2), Streams(sources, TOLERATED)
    early = np.zeros(len(sources), bool)
    for votes in votes_of(sources, random, BEFORE, images, [BEFORE_SHARE] * len(sources)):
        early |= streams.take(votes) >= ALARM
    found = np.full(len(sources), np.inf)
    for number, votes in enumerate(votes_of(sources, random, PATIENCE, images, [share] * len(sources)), 1):
        found[(streams.take(votes) >= ALARM) & np.isinf(found)] = number
        if np.isfinite(found).all():
            break
    median, most = np.quantile(found, [0.5, 0.9], method="higher").tolist()
    return {
        "calibration_size": sources[0].size,
        "share": share,
        "images_a_slice": images,
        "runs": len(found),
        "median": median if np.isfinite(median) else None,
        "p90": most if np.isfinite(most) else None,
        "without_alarm": int(np.isinf(found).sum()),
        "alarms_before": int(early.sum()),
    }


def cost(source: Source, images: int) -> dict[str, float]:
    """CPU microseconds an image of 28 x 28, the hashes of pixels included; the least of seven rounds."""
    costs = {}
    pixels = np.random.default_rng(0).integers(0, 256, (images, 1, 28, 28), np.uint8)
    for count in (1, 64):
        parts = [source.draw(np.random.default_rng(i), count, 0) for i in range(images // count)]
        batches = pixels[: images // count * count].reshape(-1, count, 1, 28, 28)
        rounds = []
        for _ in range(7):
            drift: Drift = source.drift()
            begin = time.process_time()
            for number, ((p_values, labels), batch) in enumerate(zip(parts, batches, strict=True)):
                drift.see(p_values, labels, marks_of(batch), number * count / 100)  # 100 images a second
            rounds.append(1e6 * (time.process_time() - begin) / len(parts) / count)
        costs[f"images_a_request_{count}"] = min(rounds)
    return costs


def memory(source: Source) -> dict[str, int]:
    """Bytes that a test takes after 10,000 clients, of which the first 100 sent more images than are remembered."""
    random = np.random.default_rng(0)
    tracemalloc.start()
    drift = source.drift()
    for client in range(10_000):
        images = 2 * REMEMBERED if client < 100 else 2
        marks = random.integers(-(2**63), 2**63, images).tolist()
        drift.see([0.5] * images, [0] * images, marks, client / 1000, b"client-%d" % client)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"clients": 10_000, "streams": len(drift.streams), "bytes": used}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog=f"python -m {MODULE}"
    )
    data = os.environ.get("DUET_DATA_DIR")
    parser.add_argument("--data", type=Path, default=data, help="folder of MNIST and Fashion-MNIST, by name")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"), help="folder for the JSON")
    parser.add_argument("--quick", action="store_true", help="a short run that only tests the benchmark")
    chosen = parser.parse_args(arguments)
    logging.getLogger("duet.drift").setLevel(logging.ERROR)  # it would tell of every run
    quick = chosen.quick
    sources = {size: [simulated(size, seed) for seed in range(10 if quick else 200)] for size in SIZES}
    written = {"drift.json": _simulated(sources, quick=quick)}
    if chosen.data:
        written["drift_real.json"] = _real(reference(chosen.data), quick=quick)
    chosen.out.mkdir(parents=True, exist_ok=True)
    about = {
        "command": " ".join(
            ["python -m", MODULE, *(["--quick"] if quick else []), *(["--data DIR"] if chosen.data else [])]
        ),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "by_proof": {"alarm_evidence": ALARM, "tolerated": TOLERATED, "held_slices": HELD},
    }
    for name, results in written.items():
        _show(results)
        (chosen.out / name).write_text(json.dumps(about | {"by_simulation": results}, indent=2) + "\n")
        out.print(f"written: {chosen.out / name}")


def _simulated(sources: dict[int, list[Source]], *, quick: bool) -> dict[str, Any]:
    images, sets, few, slices = (16_000, 3, 2, 300) if quick else (1_000_000, 20, 20, 10_000)
    large = sources[SIZES[-1]]
    caught = [simulated(SIZES[-1], seed, 1.0) for seed in range(len(large))]
    return {
        "cost_us_an_image": cost(large[0], 6400),
        "memory": memory(large[0]),
        "false_alarms": [row for size in SIZES for row in false_alarms(sources[size][:sets], images)],
        "delays": [delays(sources[size], share, count) for size in SIZES for count in EACH for share in SHARES],
        "ends": [ends(sources[size][:few], share, 300 if quick else LASTS) for size in SIZES for share in SHARES],
        "clients": [some_clients(large[:1], 1, slices), some_clients(large[:few], 5, 200)],
        "all_caught": {
            "delays": [delays(caught, share, IMAGES) for share in SHARES],
            "clients": some_clients(caught[:few], 5, 200),
        },
        "bursts": [bursts(large[0], *burst, slices) for burst in ((7, 1), (200, 1), (10_000, 1), (10_000, 5))],
    }


def _real(source: Source, *, quick: bool) -> dict[str, Any]:
    runs = 5 if quick else 20
    return {
        "false_alarms": false_alarms([source] * runs, 16_000 if quick else 1_000_000),
        "delays": [delays([source] * (10 if quick else 200), share, count) for count in EACH for share in SHARES],
        "two_clients": two_clients(source, runs),
    }


def _show(results: dict[str, Any]) -> None:
    table = Table("calibration images", "turns by", "images a slice", "median slices to the alarm", "90 %", "no alarm")
    for row in results["delays"]:
        cells = (row["calibration_size"], f"{row['share']:.0%}", row["images_a_slice"], row["median"], row["p90"])
        table.add_row(*map(str, (*cells, row["without_alarm"])))
    out.print(table)
    out.print(*(value for name, value in results.items() if name != "delays"), sep="\n")


if __name__ == "__main__":
    main()
