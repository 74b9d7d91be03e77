"""A million distinct items through the memory tier: does resident memory stay where the limit says?

Every item is new, so every one is kept and, once the limit is reached, an older one dropped. Each limit and size of
value has a process of its own; RSS counts from just before the first item.
"""

import asyncio
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import numpy as np
import psutil  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from prometheus_client import REGISTRY
from rich.table import Table

from loadtests.bench import network, report
from services.caching.cache import Cache, CachedOperation
from services.caching.memory import MemoryTier
from services.caching.values import Layout
from services.call import Call

MIB = 2**20
LIMITS = (64, 256)  # MiB
OUTPUTS: dict[str, dict[str, np.ndarray]] = {  # a batch of one
    "class probabilities": {"logits": np.zeros((1, 10), "f4"), "probabilities": np.zeros((1, 10), "f4")},
    "image": {"images": np.zeros((1, 1, 28, 28), "u1")},
}
ITEMS = 1_000_000
BATCH = 64  # items a request
BOUND = 1.1  # growth of RSS, times the limit


@dataclass(frozen=True)
class Run:
    """`grown` is (items so far, MiB of RSS beyond the baseline); held and evicted as the server's metrics say."""

    outputs: str
    value_bytes: int
    limit_mib: int
    baseline_mib: float
    grown: list[tuple[int, float]]
    held_mib: float
    evicted: int

    @property
    def ratio(self) -> float:
        """The highest growth of RSS, times the limit."""
        return max(mib for _, mib in self.grown) / self.limit_mib

    @property
    def met(self) -> bool:
        return self.ratio <= BOUND


async def _fill(outputs: str, limit_mib: int, items: int) -> Run:
    batch = {name: np.repeat(array, BATCH, axis=0) for name, array in OUTPUTS[outputs].items()}
    subject = CachedOperation("0" * 64, "fill", Layout.of(batch), lambda: 0.0)
    process = psutil.Process()
    grown = []

    async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
        return batch

    async def ask(cache: Cache, first: int) -> None:
        await cache.answer(subject, {"item": np.arange(first, first + BATCH)}, Call(), compute)

    for first in range(100):
        await ask(Cache(MemoryTier(MIB)), first)  # what every process needs once is not the tier's
    baseline = process.memory_info().rss
    evicted = REGISTRY.get_sample_value("duet_cache_evictions_total") or 0
    cache = Cache(MemoryTier(limit_mib * MIB))
    for turn, first in enumerate(range(0, items, BATCH)):
        await ask(cache, first)
        if turn % 50 == 0:
            grown.append((first + BATCH, (process.memory_info().rss - baseline) / MIB))
    return Run(
        outputs=outputs,
        value_bytes=subject.layout.value_bytes,
        limit_mib=limit_mib,
        baseline_mib=baseline / MIB,
        grown=grown,
        held_mib=(REGISTRY.get_sample_value("duet_cache_memory_bytes") or 0) / MIB,
        evicted=int((REGISTRY.get_sample_value("duet_cache_evictions_total") or 0) - evicted),
    )


def fill(outputs: str, limit_mib: int, items: int) -> Run:
    """Ask for items that nobody has asked for, a batch at a time, in this process."""
    return asyncio.run(_fill(outputs, limit_mib, items))


def figure(runs: list[Run]) -> Figure:
    picture = Figure(figsize=(9, 6), layout="constrained")
    axes = picture.subplots()
    for limit in sorted({run.limit_mib for run in runs}):
        axes.axhline(limit, linestyle="--", color="black", linewidth=1)
        axes.annotate(f"limit, {limit} MiB", (0, limit), xytext=(2, 3), textcoords="offset points")
    for run in runs:
        axes.plot(*zip(*run.grown, strict=True), label=f"{run.outputs} ({run.value_bytes} bytes), {run.limit_mib} MiB")
    axes.set(xlabel="distinct items so far", ylabel="growth of RSS, MiB", ylim=0)
    axes.legend()
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    options = parser.parse_args()
    items, limits = (50_000, (4, 8)) if options.quick else (options.items, LIMITS)
    _, served = network.ready(options.home)
    about = report.facts(served)
    report.show(about)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = [pool.submit(fill, outputs, limit, items).result() for limit in limits for outputs in OUTPUTS]

    table = Table("outputs", "value, bytes", "limit, MiB", "held", "RSS, highest growth", "/ limit", "evicted", "")
    table.title = f"{items:,} distinct items"
    for run in runs:
        mib = [str(run.limit_mib), f"{run.held_mib:.1f}", f"{run.ratio * run.limit_mib:.1f}", f"{run.ratio:.3f}"]
        verdict = "not judged" if options.quick else "met" if run.met else "[red]MISSED"
        table.add_row(run.outputs, str(run.value_bytes), *mib, f"{run.evicted:,}", verdict)
    report.out.print(table)
    results = {"items": items, "bound": BOUND, "runs": [asdict(run) | {"ratio": run.ratio} for run in runs]}
    report.save(options.out, "cache_memory", about, results, figure(runs))
    return int(not options.quick and not all(run.met for run in runs))


if __name__ == "__main__":
    sys.exit(main())
