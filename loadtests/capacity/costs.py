"""What work costs on one core, as `measure` found it."""

from __future__ import annotations

import bisect
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Costs:
    """Times in seconds of one core, for requests of `items` images each.

    Attributes:
        items: images a request.
        sizes: of the batches that were timed, ascending.
        compute: time of a batch of each size, in their order.
        request: a request that does not use the cache, without its compute.
        miss: a request whose images are not in the cache, without their compute.
        hit: a request whose images are all in the cache.
        refusal: a request that is refused.
        turn: of an event loop that reads requests, beside what each of them takes.
        wake: of an event loop that slept when a request came, beside that.
        network: from the client to the server and back, on no core of the server.
        proxy: a request's share of a proxy on the same core.
        item: what the server takes for the compute time of an item when it starts.
        batched: the same, for one more item of a batch.
        gains: whether a large batch takes less time than small ones.
        value_bytes: of an answer in the cache.
        redis: one key of one request at a Redis server.
        round_trip: to Redis and back.
    """

    items: int
    sizes: tuple[int, ...]
    compute: tuple[float, ...]
    request: float
    miss: float
    hit: float
    refusal: float
    turn: float
    wake: float
    network: float
    proxy: float
    item: float
    batched: float
    gains: bool
    value_bytes: int
    redis: float
    round_trip: float

    def batch(self, size: int) -> float:
        """The compute time of a batch: on the line between the two sizes beside it that were timed."""
        sizes, times = self.sizes, self.compute
        if len(sizes) == 1:
            return times[0] * size / sizes[0]
        right = min(max(1, bisect.bisect_left(sizes, size)), len(sizes) - 1)
        slope = (times[right] - times[right - 1]) / (sizes[right] - sizes[right - 1])
        return max(0.0, times[right] + slope * (size - sizes[right]))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read(path: Path, items: int) -> Costs:
    """The costs of requests with so many images, in a file that `measure` wrote.

    Raises:
        ValueError: they are not in there; the message says what is.
    """
    try:
        found = json.loads(path.read_text())["costs"]
        by_items = {int(key): value for key, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "`python -m loadtests.capacity measure` writes one"
        raise ValueError(
            f"--measured {path}: no costs can be read ({type(error).__name__}: {error}); {remedy}"
        ) from None
    if items not in by_items:
        known = ", ".join(map(str, sorted(by_items)))
        raise ValueError(f"--items {items}: {path} has costs of requests with {known} images; choose one of them")
    chosen = by_items[items]
    try:
        return Costs(**chosen | {"sizes": tuple(chosen["sizes"]), "compute": tuple(chosen["compute"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"--measured {path}: {error}; measure again") from None
