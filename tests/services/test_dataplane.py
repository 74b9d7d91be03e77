"""The data plane over real bundles: tiny ONNX graphs in a store of the test's own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import REGISTRY

from services.dataplane import DataPlane
from services.errors import DeadlineExceeded, InferenceFailed, NotReady, UnknownModel
from services.inference import registry
from services.inference.bundle import Bundle, Graph, Manifest, Parity, Tensor, seal
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.scorer import Scorer
from services.telemetry.call import Call

DRAWINGS = np.array([[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]], np.float32)  # one a class


def by_class() -> onnx.ModelProto:
    """latents [N,2] and labels [N] -> the label's drawing, brighter by the first latent; an unknown label fails."""
    nodes = [
        helper.make_node("Gather", ["drawings", "labels"], ["drawn"]),
        helper.make_node("Slice", ["latents", "zero", "one", "one"], ["brightness"]),
        helper.make_node("Add", ["drawn", "brightness"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["images"], to=TensorProto.UINT8),
    ]
    constants = {
        "drawings": DRAWINGS,
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "shape": np.array([-1, 1, 2, 2], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "decode",
        [
            helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N"]),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def generator(tmp_path: Path, draft: Manifest) -> Bundle:
    directory = tmp_path / "generator"
    directory.mkdir()
    onnx.save(by_class(), directory / "decode.onnx")
    inputs = (
        Tensor(name="latents", dtype="float32", shape=("N", 2)),
        Tensor(name="labels", dtype="int64", shape=("N",)),
    )
    outputs = (Tensor(name="images", dtype="uint8", shape=("N", 1, 2, 2)),)
    parity = Parity(batch_sizes=(1,), max_abs_diff=0, bound=0)
    decode = Graph(file="decode.onnx", opset=20, inputs=inputs, outputs=outputs, parity=parity)
    fields = {"name": "tiny-drawings", "task": "generation", "latent_size": 2, "graphs": {"decode": decode}}
    return seal(directory, draft.model_copy(update=fields))


@asynccontextmanager
async def running(*tasks: Any) -> AsyncIterator[DataPlane]:
    plane = DataPlane(tasks)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


@pytest.fixture
async def plane(empty_store: Path, make_bundle: Any) -> AsyncIterator[DataPlane]:
    """One that serves the tiny classifier, whose three logits are the sum of the pixels."""
    registry.store(make_bundle())
    async with running("classification") as plane:
        assert plane.ready, plane.problems
        yield plane


def images(*brightness: int) -> dict[str, np.ndarray]:
    """Images uint8 [N,1,2,2], each of one brightness."""
    return {"images": np.array(brightness, np.uint8)[:, None, None, None] * np.ones((1, 2, 2), np.uint8)}


def sums(outputs: dict[str, np.ndarray]) -> list[float]:
    return list(outputs["logits"][:, 0].tolist())


def computed(model: str = "tiny-linear", operation: str = "classify") -> float:
    """Items that the engine has computed since the process began."""
    return REGISTRY.get_sample_value("duet_batch_items_sum", {"model": model, "operation": operation}) or 0.0


async def test_an_answer_is_the_models_own(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    inputs = images(1, 2, 250)
    outputs = await plane.infer(model, "classify", inputs, Call())
    assert sums(outputs) == [4, 8, 1000]
    for name, direct in model.run("classify", inputs).items():
        np.testing.assert_array_equal(outputs[name], direct)


async def test_what_was_asked_before_is_a_hit_and_computed_no_more(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    first, second = Call(), Call()
    fresh = await plane.infer(model, "classify", images(1, 2), first)
    before = computed()
    cached = await plane.infer(model, "classify", images(1, 2), second)
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
    await plane.infer(model, "classify", images(2, 4), Call())
    before, call = computed(), Call()
    outputs = await plane.infer(model, "classify", images(1, 2, 3, 4, 5), call)
    assert sums(outputs) == [4, 8, 12, 16, 20]
    assert computed() - before == 3
    assert call.cache_status == "partial; hits=2/5"


async def test_equal_items_of_one_request_are_computed_once(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    before, call = computed(), Call()
    outputs = await plane.infer(model, "classify", images(7, 8, 7, 7, 8), call)
    assert sums(outputs) == [28, 32, 28, 28, 32]
    assert computed() - before == 2
    assert call.cache_status == "miss; hits=0/5"


async def test_no_store_neither_reads_nor_writes(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(2):
        call, before = Call(read_cache=False, write_cache=False), computed()
        assert sums(await plane.infer(model, "classify", images(3, 3), call)) == [12, 12]
        assert computed() - before == 2
        assert call.cache_status == "bypass"
    after = Call()
    await plane.infer(model, "classify", images(3), after)
    assert after.cache_status == "miss; hits=0/1"


async def test_no_cache_computes_anew_and_keeps_the_answer(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    await plane.infer(model, "classify", images(3), Call())
    before, call = computed(), Call(read_cache=False)
    assert sums(await plane.infer(model, "classify", images(3, 4), call)) == [12, 16]
    assert computed() - before == 2
    assert call.cache_status == "bypass"
    after = Call()
    await plane.infer(model, "classify", images(4), after)
    assert after.cache_status == "hit; hits=1/1"


async def test_what_nobody_asks_for_again_is_not_cached(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(2):
        call = Call()
        assert sums(await plane.infer(model, "classify", images(5), call, cacheable=False)) == [20]
        assert call.cache_status == "bypass"


async def test_a_cached_answer_cannot_be_changed_by_whoever_got_it(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    for _ in range(3):
        outputs = await plane.infer(model, "classify", images(5), Call())
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
                assert sums(await plane.infer(model, "classify", images(1), call)) == [expected]
                assert call.cache_status.startswith("miss")


async def test_concurrent_requests_get_their_own_answers(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    requests = [images(n, 255 - n) for n in range(120)]
    answers = await asyncio.gather(*(plane.infer(model, "classify", request, Call()) for request in requests))
    assert [sums(answer) for answer in answers] == [[4 * n, 4 * (255 - n)] for n in range(120)]


async def test_a_call_says_how_long_each_stage_took(plane: DataPlane) -> None:
    call = Call()
    await plane.infer(plane.select(Classifier, "classify", None), "classify", images(1), call)
    assert set(call.seconds) == {"cache", "queue", "compute"}
    assert all(seconds >= 0 for seconds in call.seconds.values())


async def test_a_call_whose_deadline_passed_gets_no_answer(plane: DataPlane) -> None:
    model = plane.select(Classifier, "classify", None)
    with pytest.raises(DeadlineExceeded):
        await plane.infer(model, "classify", images(1), Call(deadline=time.monotonic() - 1))
    assert sums(await plane.infer(model, "classify", images(1), Call())) == [4], "and nothing was cached for it"


async def test_an_item_that_breaks_the_engine_fails_alone(empty_store: Path, generator: Bundle) -> None:
    registry.store(generator)
    async with running("generation") as plane:
        assert plane.ready, plane.problems
        model = plane.select(Generator, "decode", None)

        async def draw(*labels: int) -> list[list[int]]:
            inputs = {"latents": np.ones((len(labels), 2), np.float32), "labels": np.array(labels)}
            outputs = await plane.infer(model, "decode", inputs, Call())
            return [image.ravel().tolist() for image in outputs["images"]]

        expected = (DRAWINGS + 1).astype(int).tolist()
        good, bad, other = await asyncio.gather(draw(0, 1), draw(2, 99), draw(2), return_exceptions=True)
        assert good == expected[:2]
        assert other == expected[2:]
        assert isinstance(bad, InferenceFailed)
        assert bad.status == 500
        assert "tiny-drawings failed on item" in bad.detail
        assert "onnx" not in bad.detail.lower(), "the engine's words stay in the log"
        assert await draw(2) == expected[2:], "the model goes on"


async def test_without_redis_the_plane_says_so_and_what_an_item_takes(plane: DataPlane) -> None:
    worth = plane.worth(plane.select(Classifier, "classify", None))["classify"]
    assert (worth.admission, worth.round_trip_seconds, worth.from_items, worth.leases) == ("never", None, None, False)
    assert worth.item_seconds > 0
    labels = {"model": "tiny-linear", "operation": "classify"}
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
        worth = plane.worth(plane.select(Classifier, "classify", None))["classify"]
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
            assert sums(await plane.infer(plane.select(Classifier, "classify", None), "classify", images(1), call)) == [
                4
            ]
            assert call.cache_status == expected
    new = registry.store(make_bundle("retrained", weight=2.0))
    for entry, total, expected in ((new, 8, "miss; hits=0/1"), (old, 4, "hit; hits=1/1")):
        monkeypatch.setenv("DUET_MODELS", entry.tag)
        async with running("classification") as plane:
            call = Call()
            model = plane.select(Classifier, "classify", entry.tag)
            assert sums(await plane.infer(model, "classify", images(1), call)) == [total]
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
        assert sums(await plane.infer(model, "classify", images(1), Call())) == [4]
        assert plane.worth(model)["classify"].admission == "never"
    assert "DUET_REDIS_URL cannot be used" in caplog.text
    assert "hunter2" not in caplog.text


async def test_before_the_start_nothing_is_ready(empty_store: Path) -> None:
    plane = DataPlane(["classification"])
    with pytest.raises(NotReady, match="starting") as caught:
        plane.select(Classifier, "classify", None)
    assert caught.value.retry_after == 1.0


async def test_a_store_without_a_model_for_the_task_says_what_to_do(empty_store: Path) -> None:
    async with running("classification", "anomaly") as plane:
        assert not plane.ready
        assert len(plane.problems) == 2
        with pytest.raises(NotReady, match="no anomaly model in the store: run `duet train`"):
            plane.select(Scorer, "score", None)


async def test_a_selected_model_that_is_not_stored_is_named(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.store(make_bundle())
    monkeypatch.setenv("DUET_MODELS", "missing:1")
    async with running("classification") as plane:
        assert len(plane.problems) == 1
        assert "'missing:1' is not in the store; it holds tiny-linear:" in plane.problems[0]


async def test_a_damaged_graph_is_named_and_keeps_the_service_unready(empty_store: Path, make_bundle: Any) -> None:
    entry = registry.store(make_bundle())
    path = entry.path / "classify.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    async with running("classification") as plane:
        assert not plane.ready
        assert "classify.onnx: SHA-256" in plane.problems[0]
        assert REGISTRY.get_sample_value("duet_ready") == 0


async def test_a_bundle_that_lacks_the_graph_of_its_task_is_named(empty_store: Path, make_bundle: Any) -> None:
    registry.store(make_bundle(task="anomaly"))
    async with running("anomaly") as plane:
        assert "a bundle for anomaly needs 'score'" in plane.problems[0]


async def test_a_graph_that_does_not_run_keeps_the_service_up_and_unready(
    empty_store: Path, tmp_path: Path, generator: Bundle
) -> None:
    unlike = generator.manifest.model_copy(update={"latent_size": 7})
    registry.store(seal(generator.path, unlike))
    async with running("generation") as plane:
        assert "a graph does not run on the inputs of generation" in plane.problems[0]
        with pytest.raises(NotReady, match="does not run"):
            plane.select(Generator, "decode", None)


async def test_a_model_is_found_by_name_by_tag_and_by_nothing(plane: DataPlane) -> None:
    (entry,) = plane.entries
    models = [plane.select(Classifier, "classify", name) for name in (None, entry.name, entry.tag)]
    assert models[0] is models[1] is models[2]


@pytest.mark.parametrize(
    "name", ["no", "tiny-linear:0", "tiny-linear:", "TINY-LINEAR", "", "\x00", "\ud800", "x" * 999]
)
async def test_an_unknown_model_is_named_beside_those_there_are(plane: DataPlane, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"is not served here; there is tiny-linear:") as caught:
        plane.select(Classifier, "classify", name)
    assert caught.value.field == "model"
    assert len(caught.value.detail) < 200


async def test_a_model_of_another_task_is_unknown(plane: DataPlane) -> None:
    with pytest.raises(UnknownModel, match="there is none"):
        plane.select(Scorer, "score", "tiny-linear")
    with pytest.raises(UnknownModel, match="'explain'"):
        plane.select(Classifier, "explain", "tiny-linear")


async def test_after_the_stop_nobody_hangs_and_nothing_is_ready(empty_store: Path, make_bundle: Any) -> None:
    registry.store(make_bundle())
    async with running("classification") as plane:
        model = plane.select(Classifier, "classify", None)
        asked = [asyncio.create_task(plane.infer(model, "classify", images(n), Call())) for n in range(50)]
        await asyncio.sleep(0)
        await plane.stop()
        outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        for n, outcome in enumerate(outcomes):
            assert isinstance(outcome, NotReady) or (isinstance(outcome, dict) and sums(outcome) == [4 * n])
        assert any(isinstance(outcome, NotReady) for outcome in outcomes)
        with pytest.raises(NotReady, match="stopping"):
            plane.select(Classifier, "classify", None)


async def test_a_plane_that_never_started_can_be_stopped(empty_store: Path) -> None:
    await DataPlane(["classification"]).stop()
