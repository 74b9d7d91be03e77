"""A folder of bundles in place of the store: what is found in it, in which order, and that nothing is written there."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.dataplane import DataPlane
from services.inference import folder, registry
from services.inference.bundle import MANIFEST, Bundle
from services.inference.classifier import Classifier
from services.settings import Settings
from tests.services.dataplane.planes import running

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, named by DUET_BUNDLES."""
    path = tmp_path / "mount"
    path.mkdir()
    monkeypatch.setenv("DUET_BUNDLES", str(path))
    monkeypatch.delenv("DUET_BUNDLE_NAME", raising=False)
    monkeypatch.delenv("DUET_MODELS", raising=False)
    return path


def put(bundle: Bundle, *below: Path | str) -> Path:
    return Path(shutil.copytree(bundle.path, Path(*below), dirs_exist_ok=True))


def tags() -> list[str]:
    return [entry.tag for entry in folder.available(Settings())]


def snapshot(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below a path, with times and content."""
    return {
        str(found): (found.stat().st_mtime_ns, found.stat().st_mode, found.read_bytes() if found.is_file() else b"")
        for found in [path, *path.rglob("*")]
    }


def test_the_folder_may_be_a_bundle_or_hold_them_by_name_or_by_name_and_version(
    make_bundle: MakeBundle, mount: Path
) -> None:
    one, two = make_bundle("one"), make_bundle("two", name="tiny-other", weight=2)
    put(one, mount)
    assert tags() == [f"tiny-linear:{one.version}"]
    shutil.rmtree(mount)
    put(one, mount / "whatever it is called")
    put(two, mount / two.name / two.version)
    (mount / "lost+found").mkdir()
    (mount / "not-a-bundle" / "at" / "all").mkdir(parents=True)
    (mount / "notes.txt").write_text("notes")
    put(two, mount / ".unfinished")
    assert sorted(tags()) == [f"tiny-linear:{one.version}", f"tiny-other:{two.version}"]


def test_of_several_versions_the_last_folder_is_the_newest(make_bundle: MakeBundle, mount: Path) -> None:
    versions = [make_bundle(str(weight), weight=weight) for weight in (1, 2, 3)]
    for name, bundle in zip(("9", "10", "2"), versions, strict=True):
        put(bundle, mount / "tiny-linear" / name)
    in_order = [versions[1], versions[0], versions[2]]  # 10, 9, 2
    assert tags() == [f"tiny-linear:{bundle.version}" for bundle in in_order]
    put(versions[0], mount / "again")
    assert len(tags()) == 3, "the same bundle twice is one"


async def test_it_is_served_in_place_of_the_store_and_stays_as_it_is(
    empty_store: Path, make_bundle: MakeBundle, mount: Path
) -> None:
    stored = registry.store(make_bundle("stored", name="tiny-stored"))
    bundle = make_bundle()
    put(bundle, mount / bundle.name)
    before = snapshot(mount)
    async with running("classification") as plane:
        assert plane.ready, plane.problems
        assert [entry.tag for entry in plane.entries] == [f"tiny-linear:{bundle.version}"]
        assert plane.select(Classifier, "classify", bundle.name).model.bundle.path == mount / bundle.name
    assert snapshot(mount) == before
    assert registry.entries() == [stored]


async def test_a_moved_tag_is_found_where_the_version_is_pinned(
    make_bundle: MakeBundle, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, got = make_bundle("wanted"), make_bundle("got", weight=2)
    put(got, mount)
    monkeypatch.setenv("DUET_MODELS", f"tiny-linear:{wanted.version}")
    async with running("classification") as plane:
        assert not plane.ready
        [problem] = plane.problems[:1]
        assert problem == (
            f"model 'tiny-linear:{wanted.version}' is not in DUET_BUNDLES ({mount}); it holds tiny-linear:{got.version}"
        )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / MANIFEST).unlink(), "manifest.json: not found"),
        (lambda path: (path / MANIFEST).write_text("{"), "manifest.json: not readable as JSON"),
        (lambda path: (path / MANIFEST).write_text("[]"), "manifest.json: the JSON is a list"),
        (lambda path: edit(path, task="classificatiom"), "manifest.json: field task: "),
        (lambda path: edit(path, digest="x"), "manifest.json: the digest x… does not match"),
        (lambda path: edit(path, name="Tiny"), "manifest.json: name 'Tiny'"),
        (lambda path: edit(path, seed=1), "the manifest was changed after export"),
        (lambda path: (path / "card.md").unlink(), "card.md: No such file"),
        (lambda path: (path / "classify.onnx").write_bytes(b"x"), "classify.onnx: SHA-256"),
    ],
)
async def test_a_damaged_bundle_is_not_served_and_the_reason_is_said_and_others_are_served(
    make_bundle: MakeBundle, mount: Path, damage: Callable[[Path], object], reason: str
) -> None:
    good, bad = make_bundle("good", name="tiny-good"), make_bundle("bad", name="tiny-bad")
    put(good, mount / "good")
    damage(put(bad, mount / "bad"))
    async with running("classification") as plane:
        assert not plane.ready
        assert reason in "; ".join(plane.problems)
        assert len(plane.damaged) == 1
        assert [served.entry.name for served in plane.served] == ["tiny-good"]


def edit(path: Path, **fields: object) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **fields}))


async def test_an_empty_folder_and_one_without_the_task_say_so(
    make_bundle: MakeBundle, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running("classification") as plane:
        assert f"DUET_BUNDLES: {mount} holds no bundle" in plane.problems[0]
    put(make_bundle(), mount)
    async with running("anomaly") as plane:
        assert plane.problems == [f"no anomaly model in DUET_BUNDLES ({mount}): mount or pull one there"]
    (mount.parent / "file").touch()
    monkeypatch.setenv("DUET_BUNDLES", str(mount.parent / "file"))
    async with running("classification") as plane:
        assert "Not a directory" in plane.problems[0]


async def test_a_folder_that_appears_while_the_service_starts_is_awaited(
    make_bundle: MakeBundle, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KServe's modelcar is a link that another container makes."""
    bundle = make_bundle()
    late = mount.parent / "late"
    monkeypatch.setenv("DUET_BUNDLES", str(late))
    plane = DataPlane(["classification"])
    starting = asyncio.create_task(plane.start())
    while "does not exist yet" not in plane.problems[0]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not plane.loaded
    late.symlink_to(put(bundle, mount))
    await starting
    try:
        assert plane.ready, plane.problems
        assert [entry.tag for entry in plane.entries] == [f"tiny-linear:{bundle.version}"]
    finally:
        await plane.stop()


async def test_a_folder_that_never_appears_ends_the_start_with_the_reason(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.dataplane.FOLDER_SECONDS", 0.3)
    monkeypatch.setenv("DUET_BUNDLES", str(mount / "missing"))
    async with running("classification") as plane:
        assert plane.loaded
        assert f"DUET_BUNDLES: {mount / 'missing'}: No such file or directory" in plane.problems[0]


async def test_the_only_model_may_have_another_name(
    make_bundle: MakeBundle, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_bundle("old"), make_bundle("new", weight=2)
    put(old, mount / "1")
    put(new, mount / "2")
    monkeypatch.setenv("DUET_BUNDLE_NAME", "digits")
    assert tags() == [f"digits:{new.version}", f"digits:{old.version}"]
    async with running("classification") as plane:
        assert plane.ready, plane.problems
        assert plane.select(Classifier, "classify", "digits").model.bundle.digest == new.digest
        assert plane.select(Classifier, "classify", None).entry.name == "digits"
    put(make_bundle("other", name="tiny-other"), mount / "3")
    async with running("classification") as plane:
        assert "DUET_BUNDLE_NAME: 'digits' can rename one model" in plane.problems[0]
        assert "holds tiny-linear, tiny-other" in plane.problems[0]
    monkeypatch.setenv("DUET_BUNDLE_NAME", "No Name")
    async with running("classification") as plane:
        assert "DUET_BUNDLE_NAME: 'No Name': use 1 to 63" in plane.problems[0]
