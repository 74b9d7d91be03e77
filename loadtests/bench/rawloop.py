"""The raw ONNX Runtime loop, in a process of its own on the server core."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtests.bench import cores
from services.inference.session import Session

OUTPUTS = ("logits", "probabilities")  # as Duet's classifier asks


@dataclass(frozen=True)
class Run:
    """Seconds a run of one batch: mean and median by the clock, and CPU time, which other work does not stretch."""

    mean: float
    median: float
    cpu: float


def measure(graph: Path, batch: int, image_shape: tuple[int, ...], seconds: float) -> Run:
    shape = ",".join(map(str, image_shape))
    command = [sys.executable, "-m", "loadtests.bench.rawloop", str(graph), str(batch), shape, str(seconds)]
    pinned = cores.pinned(cores.SERVER, command)
    run = subprocess.run(pinned, check=True, stdout=subprocess.PIPE, text=True, cwd=cores.ROOT)
    return Run(**json.loads(run.stdout))


def main(graph: str, batch: str, shape: str, seconds: str) -> None:
    session = Session(Path(graph), threads=1)
    image_shape = tuple(map(int, shape.split(",")))
    images = np.random.default_rng(0).integers(0, 256, (int(batch), *image_shape), np.uint8)
    for _ in range(5):
        session.run({"images": images}, OUTPUTS)
    times = [time.perf_counter()]
    cpu = time.process_time()
    while times[-1] - times[0] < float(seconds):
        session.run({"images": images}, OUTPUTS)
        times.append(time.perf_counter())
    runs = len(times) - 1
    median = statistics.median(np.diff(times).tolist())
    print(json.dumps(asdict(Run((times[-1] - times[0]) / runs, median, (time.process_time() - cpu) / runs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
