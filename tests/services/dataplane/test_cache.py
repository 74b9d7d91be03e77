"""What the data plane computes no more: answers from memory and Redis, each model's its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.call import Call
from services.dataplane import DataPlane
from services.inference import registry
from services.inference.classifier import Classifier
from tests.services.dataplane.planes import images, running, sums


def computed(model: str = "tiny-linear", operation: str = "classify") -> float:
    """Items that the engine has computed since the process began."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "duet_batch_items_sum"
        and (sample.labels["model"], sample.labels["operation"]) == (model, operation)
    )


async def test_what_was_asked_before_is_a_hit_and_computed_no_more(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    first, second = Call(), Call()
    fresh = await model.infer("classify", images(1, 2), first)
    before = computed()
    cached = await model.infer("classify", images(1, 2), second)
    assert computed() == before
    assert first.cache_status == "miss; hits=0/2"
    assert second.cache_status == "hit; hits=2/2"
    assert first.age is None
    assert second.age is not None
    assert cached.keys() == fresh.keys()
    for name in fresh:
        np.testing.assert_array_equal(cached[name], fresh[name])
        assert cached[name].dtype == fresh[name].dtype


async def test_of_a_batch_that_is_known_in_part_only_the_rest_is_computed(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    await model.infer("classify", images(2, 4), Call())
    before, call = computed(), Call()
    outputs = await model.infer("classify", images(1, 2, 3, 4, 5), call)
    assert sums(outputs) == [4, 8, 12, 16, 20]
    assert computed() - before == 3
    assert call.cache_status == "partial; hits=2/5"


async def test_equal_items_of_one_request_are_computed_once(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    before, call = computed(), Call()
    outputs = await model.infer("classify", images(7, 8, 7, 7, 8), call)
    assert sums(outputs) == [28, 32, 28, 28, 32]
    assert computed() - before == 2
    assert call.cache_status == "miss; hits=0/5"


async def test_no_store_neither_reads_nor_writes(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(2):
        call, before = Call(read_cache=False, write_cache=False), computed()
        assert sums(await model.infer("classify", images(3, 3), call)) == [12, 12]
        assert computed() - before == 2
        assert call.cache_status == "bypass"
    after = Call()
    await model.infer("classify", images(3), after)
    assert after.cache_status == "miss; hits=0/1"


async def test_no_cache_computes_anew_and_keeps_the_answer(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    await model.infer("classify", images(3), Call())
    before, call = computed(), Call(read_cache=False)
    assert sums(await model.infer("classify", images(3, 4), call)) == [12, 16]
    assert computed() - before == 2
    assert call.cache_status == "bypass"
    after = Call()
    await model.infer("classify", images(4), after)
    assert after.cache_status == "hit; hits=1/1"


async def test_what_nobody_asks_for_again_is_not_cached(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(2):
        call = Call()
        assert sums(await model.infer("classify", images(5), call, cacheable=False)) == [20]
        assert call.cache_status == "bypass"


async def test_a_cached_answer_cannot_be_changed_by_whoever_got_it(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(3):
        outputs = await model.infer("classify", images(5), Call())
        assert sums(outputs) == [20]
        outputs["logits"][:] = -1


async def test_two_versions_never_share_answers(empty_store: Path, make_bundle: Any) -> None:
    one, two = (registry.store(make_bundle(folder, weight=weight)) for folder, weight in (("a", 1.0), ("b", 2.0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUET_MODELS", f"{one.tag},{two.tag}")
        async with running("classification") as plane:
            for entry, expected in ((one, 4), (two, 8)):
                model = plane.select(Classifier, "classify", entry.tag)
                call = Call()
                assert sums(await model.infer("classify", images(1), call)) == [expected]
                assert call.cache_status.startswith("miss")


async def test_without_redis_the_plane_says_so_and_what_an_item_takes(plane: DataPlane) -> None:
    served = plane.select(Classifier, "classify", None)
    worth = served.estimates()["classify"]
    assert (worth.admission, worth.round_trip_seconds, worth.from_items, worth.leases) == ("never", None, None, False)
    assert worth.item_seconds > 0
    labels = {"model": "tiny-linear", "version": served.entry.version, "operation": "classify"}
    assert REGISTRY.get_sample_value("duet_item_seconds", labels) == worth.item_seconds
    assert REGISTRY.get_sample_value("duet_cache_redis_from_items", labels) == 0


@pytest.mark.server
async def test_with_redis_the_plane_shows_both_numbers_and_the_decision(
    empty_store: Path, make_bundle: Any, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.store(make_bundle())
    monkeypatch.setenv("DUET_REDIS_URL", redis_server.url)
    monkeypatch.setenv("DUET_REDIS_TIMEOUT_MS", "10000")
    async with running("classification") as plane:
        worth = plane.select(Classifier, "classify", None).estimates()["classify"]
        assert worth.admission == "auto"
        assert worth.round_trip_seconds is not None
        assert worth.from_items is not None
        assert worth.from_items >= worth.round_trip_seconds / worth.item_seconds > worth.from_items - 1


@pytest.mark.server
async def test_two_planes_share_answers_through_redis_and_a_retrained_model_has_none_of_them(
    empty_store: Path, make_bundle: Any, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", redis_server.url)
    monkeypatch.setenv("DUET_REDIS_ADMISSION", "always")
    monkeypatch.setenv("DUET_REDIS_TIMEOUT_MS", "10000")
    monkeypatch.setenv("DUET_CACHE_MEMORY_BYTES", "0")
    old = registry.store(make_bundle())
    for expected in ("miss; hits=0/1", "hit; hits=1/1"):
        async with running("classification") as plane:
            call = Call()
            assert sums(await plane.select(Classifier, "classify", None).infer("classify", images(1), call)) == [4]
            assert call.cache_status == expected
    new = registry.store(make_bundle("retrained", weight=2.0))
    for entry, total, expected in ((new, 8, "miss; hits=0/1"), (old, 4, "hit; hits=1/1")):
        monkeypatch.setenv("DUET_MODELS", entry.tag)
        async with running("classification") as plane:
            call = Call()
            model = plane.select(Classifier, "classify", entry.tag)
            assert sums(await model.infer("classify", images(1), call)) == [total]
            assert call.cache_status == expected


async def test_a_redis_url_that_cannot_be_used_is_no_reason_not_to_answer(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry.store(make_bundle())
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    monkeypatch.setenv("DUET_REDIS_URL", "redis+sentinel://user:hunter2@host:26379")
    async with running("classification") as plane:
        assert plane.ready
        model = plane.select(Classifier, "classify", None)
        assert sums(await model.infer("classify", images(1), Call())) == [4]
        assert model.estimates()["classify"].admission == "never"
    assert "DUET_REDIS_URL cannot be used" in caplog.text
    assert "hunter2" not in caplog.text
