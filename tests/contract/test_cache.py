"""What callers are told of the cache over HTTP, and what they may wish of it."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from tests.contract.questions import (
    CNN,
    GAN,
    HIT,
    MISS,
    NO_STORE,
    SCORER,
    VAE,
    ask,
    exact,
    generation,
    native,
    rows,
    status,
    unseen,
    v2,
)

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_an_age_stands_on_hits_alone(client: httpx.Client) -> None:
    images, make = unseen(3), native("/classify", rows)
    assert "age" not in ask(client, make(images[:2]), NO_STORE).headers
    assert "age" not in ask(client, make(images[:2])).headers
    assert "age" not in ask(client, make(images[:2]), {"Cache-Control": "no-cache"}).headers
    for known in (images[:2], images):
        hit = ask(client, make(known))
        assert 0 <= int(hit.headers["age"]) < 600
    assert "age" not in client.get("/v2").headers


WISHES: dict[str, list[tuple[str, str]]] = {
    "no-store": [("Cache-Control", "no-store")],
    "no-cache": [("Cache-Control", "no-cache")],
    "both": [("Cache-Control", "No-Cache, No-Store")],
    "no-store in the first of two lines": [("Cache-Control", "no-store"), ("Cache-Control", "max-age=0")],
    "no-store in the second of two lines": [("Cache-Control", "max-age=0"), ("cache-control", "no-store")],
    "no-cache in the first of two lines": [("Cache-Control", "no-cache"), ("Cache-Control", "private")],
    "one in each line": [("Cache-Control", "no-store"), ("Cache-Control", "no-cache")],
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("protocol", ["native", "V2"])
def test_what_the_caller_wishes_of_the_cache_is_heeded(client: httpx.Client, wish: str, protocol: str) -> None:
    make = {
        "native": native("/classify", rows),
        "V2": v2(CNN, "UINT8", lambda images: images.ravel().tolist()),
    }[protocol]
    known, new = unseen(), unseen()
    kept = "no-store" not in " ".join(itertools.chain(*WISHES[wish])).lower()
    assert status(client, make(known)) == MISS
    for images in (known, new):
        assert ask(client, make(images), WISHES[wish]).headers["x-cache"] == "bypass"
    assert status(client, make(known)) == HIT, "what was there stays"
    assert status(client, make(new)) == (HIT if kept else MISS)


def test_fresh_seeds_are_not_kept(client: httpx.Client) -> None:
    for _ in range(2):
        assert status(client, generation(count=2)) == "bypass"


@pytest.mark.parametrize("model", [CNN, SCORER, VAE, GAN])
def test_a_model_shows_what_decides_about_its_cache(client: httpx.Client, model: str) -> None:
    cache = client.get(f"/v2/models/{model}").json()["parameters"]["cache"]
    operations = {CNN: {"classify"}, SCORER: {"score", "score_map"}, VAE: {"decode", "encode"}, GAN: {"decode"}}
    assert operations[model] <= cache.keys()
    for about in cache.values():
        assert about["item_seconds"] > 0
        # This server has no Redis.
        assert about["admission"] == "never"
        assert about["redis_round_trip_seconds"] is None
        assert about["redis_from_items"] is None
        assert about["computed_once_in_all"] is False


def test_a_server_with_redis_shows_its_two_numbers_and_keeps_what_is_worth_it(serve: Any, redis_server: Any) -> None:
    settings = {"REDIS_URL": redis_server.url, "REDIS_ADMISSION": "always", "REDIS_TIMEOUT_MS": "10000"}
    settings = {f"DUET_{name}": value for name, value in settings.items()}
    with (
        serve("anomaly", **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        cache = client.get(f"/v2/models/{SCORER}").json()["parameters"]["cache"]
        assert cache.keys() == {"score", "score_map"}
        for about in cache.values():
            assert (about["admission"], about["redis_from_items"]) == ("always", 1)
            assert 0 < about["redis_round_trip_seconds"] < 1
        images = unseen()
        first = ask(client, native("/score", rows)(images))
    with (
        serve("anomaly", **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        again = ask(client, v2(SCORER, "FP32", lambda images: exact(images).tobytes())(images))
        assert again.headers["x-cache"] == HIT, "another process found it"
        assert ask(client, native("/score", rows)(images)).content == first.content
