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
from services.inference.bundle import Bundle, load
from services.inference.session import Arrays, Session

OUTPUTS = {"classify": ("logits", "probabilities"), "decode": ("images",)}  # as Duet asks


@dataclass(frozen=True)
class Run:
    """Seconds a run of one batch: mean and median by the clock, and CPU time, which other work does not stretch."""

    mean: float
    median: float
    cpu: float


def measure(served: Bundle, batch: int, seconds: float, operation: str = "classify") -> Run:
    command = [
        sys.executable,
        "-m",
        "loadtests.bench.rawloop",
        str(served.path.absolute()),
        operation,
        str(batch),
        str(seconds),
    ]
    pinned = cores.pinned(cores.SERVER, command)
    run = subprocess.run(pinned, check=True, stdout=subprocess.PIPE, text=True, cwd=cores.ROOT)
    return Run(**json.loads(run.stdout))


def inputs(served: Bundle, operation: str, batch: int) -> Arrays:
    """Noise in the shapes that the manifest says, classes in turn."""
    random = np.random.default_rng(0)
    drawn: Arrays = {}
    for tensor in served.manifest.graphs[operation].inputs:
        shape = (batch, *(int(size) for size in tensor.shape[1:]))
        if tensor.dtype == "uint8":
            drawn[tensor.name] = random.integers(0, 256, shape, np.uint8)
        elif tensor.dtype == "float32":
            drawn[tensor.name] = random.standard_normal(shape, np.float32)
        else:
            drawn[tensor.name] = np.arange(batch) % len(served.manifest.class_names)
    return drawn


def main(path: str, operation: str, batch: str, seconds: str) -> None:
    served = load(Path(path))
    session = Session(served.graph_path(operation), threads=1)
    feed = inputs(served, operation, int(batch))
    for _ in range(5):
        session.run(feed, OUTPUTS[operation])
    times = [time.perf_counter()]
    cpu = time.process_time()
    while times[-1] - times[0] < float(seconds):
        session.run(feed, OUTPUTS[operation])
        times.append(time.perf_counter())
    runs = len(times) - 1
    median = statistics.median(np.diff(times).tolist())
    print(json.dumps(asdict(Run((times[-1] - times[0]) / runs, median, (time.process_time() - cpu) / runs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
