"""Which model the data plane selects by a caller's words, and what it says where there is none."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.dataplane import DataPlane
from services.errors import InvalidInput, NotReady, UnknownModel
from services.inference import registry
from services.inference.bundle import BundleError
from services.inference.classifier import Classifier
from services.inference.scorer import Scorer
from services.protocol.v2.routes import V2
from tests.services.dataplane.planes import running


async def test_a_model_is_found_by_name_by_tag_and_by_nothing(plane: DataPlane) -> None:
    (entry,) = plane.entries
    models = [plane.select(Classifier, "classify", name) for name in (None, entry.name, entry.tag)]
    assert models[0] is models[1] is models[2]


@pytest.mark.parametrize(
    "name", ["no", "tiny-linear:0", "tiny-linear:", "TINY-LINEAR", "", "\x00", "\ud800", "x" * 999]
)
async def test_an_unknown_model_is_named_beside_those_there_are(plane: DataPlane, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"is not served here; served are tiny-linear:") as caught:
        plane.select(Classifier, "classify", name)
    assert caught.value.field == "model"
    assert len(caught.value.detail) < 200


async def test_a_model_of_another_task_is_unknown(plane: DataPlane) -> None:
    with pytest.raises(UnknownModel, match="served are none"):
        plane.select(Scorer, "score", "tiny-linear")
    with pytest.raises(UnknownModel, match="'explain'"):
        plane.select(Classifier, "explain", "tiny-linear")


async def test_with_several_models_a_request_that_names_none_is_refused(empty_store: Path, make_bundle: Any) -> None:
    for name in ("b-linear", "a-linear"):
        registry.store(make_bundle(name, name=name))
    async with running("classification") as plane:
        with pytest.raises(InvalidInput, match="send one of a-linear, b-linear, or let the operator choose") as caught:
            plane.select(Classifier, "classify", None)
        assert (caught.value.field, caught.value.status) == ("model", 422)


async def test_the_default_is_the_first_of_the_setting_that_can_answer(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b-linear", "a-linear"):
        registry.store(make_bundle(name, name=name))
    monkeypatch.setenv("DUET_DEFAULT_MODELS", "elsewhere, b-linear,a-linear")
    async with running("classification") as plane:
        assert plane.select(Classifier, "classify", None).entry.name == "b-linear"


async def test_where_only_reference_models_are_served_those_of_mnist_are_the_default(
    empty_store: Path, make_bundle: Any
) -> None:
    for name in ("fashion-mnist-cnn", "mnist-cnn"):
        registry.store(make_bundle(name, name=name))
    async with running("classification") as plane:
        assert plane.select(Classifier, "classify", None).entry.name == "mnist-cnn"


async def test_a_name_without_a_version_is_its_newest(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each order of the two hashes, so that no order by hash passes."""
    bundles = [make_bundle(f"weight-{weight}", weight=weight) for weight in (1.0, 2.0, 3.0, 4.0)]
    for older, newer in itertools.permutations(bundles, 2):
        for bundle in (older, newer):
            with contextlib.suppress(BundleError):
                registry.delete(f"{bundle.name}:{bundle.version}")
        old, new = registry.store(older), registry.store(newer)
        monkeypatch.setenv("DUET_MODELS", f"{old.tag},{new.tag}")
        async with running("classification") as plane:
            assert plane.select(Classifier, "classify", new.name).entry.version == new.version
            assert plane.select(Classifier, "classify", None).entry.version == new.version
            assert plane.select(Classifier, "classify", old.tag).entry.version == old.version


async def two_versions(make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> list[registry.Entry]:
    entries = [registry.store(make_bundle(f"weight-{weight}", weight=weight)) for weight in (1.0, 2.0)]
    monkeypatch.setenv("DUET_MODELS", ",".join(entry.tag for entry in entries))
    return entries


@pytest.mark.parametrize("which", [0, 1])
async def test_the_setting_chooses_the_version_that_a_name_means(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    entries = await two_versions(make_bundle, monkeypatch)
    chosen = entries[which]
    monkeypatch.setenv("DUET_DEFAULT_MODELS", f"elsewhere:1,{chosen.tag}")
    async with running("classification") as plane:
        assert plane.ready, plane.problems
        v2 = V2(plane, "classification").routes()
        by_name, pinned = (
            v2[f"/v2/models/{chosen.name}{version}/infer"] for version in ("", f"/versions/{chosen.version}")
        )
        assert by_name.respond.args[0] is pinned.respond.args[0]  # type: ignore[attr-defined]
        assert plane.served[0].entry == chosen
        for name in (None, chosen.name, chosen.tag):
            assert plane.select(Classifier, "classify", name).entry == chosen
        for entry in entries:
            assert plane.select(Classifier, "classify", entry.tag).entry == entry


async def test_no_other_version_answers_where_the_default_one_is_damaged(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, sound = await two_versions(make_bundle, monkeypatch)
    path = damaged.path / "classify.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    monkeypatch.setenv("DUET_DEFAULT_MODELS", damaged.tag)
    monkeypatch.setenv("DUET_READINESS", "default")
    async with running("classification") as plane:
        assert not plane.ready
        assert f"/v2/models/{damaged.name}/infer" not in V2(plane, "classification").routes()
        for name in (None, damaged.name, damaged.tag):
            with pytest.raises(NotReady, match=r"classify\.onnx: SHA-256"):
                plane.select(Classifier, "classify", name)
        assert plane.select(Classifier, "classify", sound.tag).entry == sound


async def test_a_default_version_that_is_not_selected_is_said(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two_versions(make_bundle, monkeypatch)
    monkeypatch.setenv("DUET_MODELS", first.tag)
    monkeypatch.setenv("DUET_DEFAULT_MODELS", second.tag)
    async with running("classification") as plane:
        said = f"DUET_DEFAULT_MODELS: {second.tag} is not selected; add it to DUET_MODELS, or name one of {first.tag}"
        assert plane.unready == said
        for name in (None, first.name, second.tag):
            with pytest.raises(NotReady, match="is not selected"):
                plane.select(Classifier, "classify", name)
        assert plane.select(Classifier, "classify", first.tag).entry == first


async def test_a_damaged_model_is_unready_alone(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, _ = registry.store(make_bundle("a", name="a-linear")), registry.store(make_bundle("b", name="b-linear"))
    path = damaged.path / "classify.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    async with running("classification") as plane:
        assert plane.select(Classifier, "classify", "b-linear").entry.name == "b-linear"
        with pytest.raises(NotReady, match=r"classify\.onnx: SHA-256"):
            plane.select(Classifier, "classify", "a-linear")
        with pytest.raises(InvalidInput, match="a-linear, b-linear"):
            plane.select(Classifier, "classify", None)
        with pytest.raises(NotReady, match="SHA-256"):
            plane.check()
        for readiness, default, ready in (
            ("any", "", True),
            ("default", "", True),
            ("default", "b-linear", True),
            ("default", "a-linear", False),
            ("all", "b-linear", False),
        ):
            plane.settings = plane.settings.model_copy(update={"readiness": readiness, "default_models": default})
            assert plane.ready is ready, (readiness, default)
        plane.settings = plane.settings.model_copy(update={"default_models": "a-linear,b-linear"})
        with pytest.raises(NotReady, match="SHA-256"):  # the other one must not answer in its place
            plane.select(Classifier, "classify", None)


async def test_a_task_without_a_model_leaves_the_others_alone(empty_store: Path, make_bundle: Any) -> None:
    registry.store(make_bundle())
    async with running("classification", "anomaly") as plane:
        assert plane.select(Classifier, "classify", None).entry.name == "tiny-linear"
        for name in (None, "scorer"):
            with pytest.raises(NotReady, match="no anomaly model in the store"):
                plane.select(Scorer, "score", name)


async def test_two_versions_have_gauges_of_their_own(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [registry.store(make_bundle(f"weight-{weight}", weight=weight)) for weight in (1.0, 2.0)]
    monkeypatch.setenv("DUET_MODELS", ",".join(entry.tag for entry in entries))
    async with running("classification") as plane:
        for served in plane.served:
            labels = {"model": served.entry.name, "version": served.entry.version, "operation": "classify"}
            seconds = served.batchers["classify"].item_seconds
            assert REGISTRY.get_sample_value("duet_item_seconds", labels) == seconds
