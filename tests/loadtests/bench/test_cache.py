"""What the cache's benchmark asks, and where it says that Redis pays."""

import json
from itertools import islice

import numpy as np
import pytest

from loadtests.bench.cache import Size, images, measured_from, of_seeds, partly


def test_images_are_never_the_same() -> None:
    assert len({batch.tobytes() for batch in islice(images(2), 50)}) == 50


def test_partly_known_batches_share_all_but_the_new_items() -> None:
    [(first, _), (known, new), (again, _)] = islice(partly("m", 64, 4), 3)
    item = 28 * 28
    pixels = [
        np.frombuffer(body[-64 * item :], np.uint8).reshape(64, item) for _, _, body in (first, known, again, new)
    ]
    kept = [{row.tobytes() for row in rows} & {row.tobytes() for row in pixels[0]} for rows in pixels[1:]]
    assert [len(rows) for rows in kept] == [60, 60, 0]
    assert pixels[1].tobytes() != pixels[2].tobytes()


def test_no_two_requests_for_samples_share_a_seed() -> None:
    pairs = [pair for count in (1, 64) for pair in islice(of_seeds("m", count), 20)]
    seeds = [json.loads(new[2])["parameters"]["seed"] for _, new in pairs]
    known = {json.loads(known[2])["parameters"]["seed"] for known, _ in pairs}
    assert len({*seeds, *known}) == len(seeds) + 2


@pytest.mark.parametrize(
    ("redis", "size"),
    [([90, 190, 390], 1), ([300, 190, 390], 2), ([90, 300, 390], 4), ([300, 300, 500], None)],
)
def test_redis_pays_from_where_it_is_never_slower(redis: list[float], size: int | None) -> None:
    found = [Size(items, 100.0 * items, each, each) for items, each in zip((1, 2, 4), redis, strict=True)]
    assert measured_from(found) == size
