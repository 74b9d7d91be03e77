"""When the data plane is ready, from before the start to after the stop, and what it says where it is not."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.call import Call
from services.dataplane import DataPlane
from services.errors import NotReady
from services.inference import registry
from services.inference.bundle import Bundle, seal
from services.inference.classifier import Classifier
from services.inference.generator import Generator
from services.inference.scorer import Scorer
from tests.services.dataplane.planes import images, running, sums


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


async def test_models_are_loaded_side_by_side_and_served_by_name_beside_a_damaged_one(
    empty_store: Path, make_bundle: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    entries = [registry.store(make_bundle(name, name=f"{name}-linear")) for name in "dbace"]
    damaged = next(entry for entry in entries if entry.name == "b-linear")
    path = damaged.path / "classify.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with caplog.at_level(logging.INFO, "duet"):
        async with running("classification") as plane:
            assert [served.entry.name for served in plane.served] == ["a-linear", "c-linear", "d-linear", "e-linear"]
            assert list(plane.damaged) == [damaged.tag]
            answer = await plane.select(Classifier, "classify", "c-linear").infer("classify", images(1), Call())
            assert answer["probabilities"].shape[0] == 1
    said = [record.args[0] for record in caplog.records if record.msg.startswith("serving ") and record.args]  # type: ignore[index]
    assert [str(tag).partition(":")[0] for tag in said] == ["a-linear", "c-linear", "d-linear", "e-linear"]


async def test_a_forked_worker_looks_into_the_store_again(empty_store: Path, make_bundle: Any) -> None:
    """The parent imported the service before the store had the model."""
    plane = DataPlane(["classification"])
    entry = registry.store(make_bundle())
    plane._process -= 1
    await plane.start()
    try:
        assert plane.ready
        assert plane.entries == [entry]
    finally:
        await plane.stop()


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


async def test_after_the_stop_nobody_hangs_and_nothing_is_ready(empty_store: Path, make_bundle: Any) -> None:
    registry.store(make_bundle())
    async with running("classification") as plane:
        model = plane.select(Classifier, "classify", None)
        asked = [asyncio.create_task(model.infer("classify", images(n), Call())) for n in range(50)]
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
