"""The store gives back what was put into it, and nothing that does not verify gets in."""

from __future__ import annotations

import errno
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import bentoml
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.inference import registry
from services.inference.bundle import MANIFEST, Bundle, BundleError, Task, load, seal

MakeBundle = Callable[..., Bundle]

pytestmark = pytest.mark.usefixtures("empty_store")


def tags(selection: str = "", tasks: tuple[Task, ...] = ("classification",)) -> list[str]:
    return [entry.tag for entry in registry.resolve(selection, tasks)]


def test_a_stored_bundle_is_the_bundle(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    entry = registry.store(bundle)
    assert entry.tag == f"tiny-linear:{bundle.version}"
    assert entry.task == "classification"
    assert load(entry.path).manifest == bundle.manifest
    assert registry.entries() == [entry]


def test_a_bundle_is_stored_with_its_folders(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    (tmp_path / "tiny" / "pictures").mkdir()
    (tmp_path / "tiny" / "pictures" / "a.txt").write_text("a")
    entry = registry.store(seal(bundle.path, bundle.manifest))
    assert (entry.path / "pictures" / "a.txt").read_text() == "a"


def test_only_what_was_verified_is_stored(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "stowaway.py").write_text("print()")
    assert not (registry.store(bundle).path / "stowaway.py").exists()


def test_the_same_digest_twice_is_one_entry(make_bundle: MakeBundle) -> None:
    first = registry.store(make_bundle("one"))
    assert registry.store(make_bundle("two")) == first
    assert registry.entries() == [first]


def test_storing_a_bundle_again_mends_a_damaged_copy(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    entry = registry.store(bundle)
    (entry.path / "classify.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="import or export the bundle again"):
        load(entry.path)
    assert load(registry.store(bundle).path).manifest == bundle.manifest


def test_the_newest_of_two_versions_is_served_and_either_can_be_named(make_bundle: MakeBundle) -> None:
    old, new = registry.store(make_bundle("old")), registry.store(make_bundle("new", weight=2))
    assert registry.entries() == [new, old]
    assert tags() == tags("tiny-linear") == tags("tiny-linear:latest") == tags("tiny-linear:") == [new.tag]
    assert tags(old.tag) == [old.tag]
    assert tags(f" {old.tag} , {new.tag},") == sorted([old.tag, new.tag])


def test_a_model_that_is_selected_twice_is_served_once(make_bundle: MakeBundle) -> None:
    entry = registry.store(make_bundle())
    assert tags(f"tiny-linear,{entry.tag},tiny-linear:latest") == [entry.tag]


def test_a_selection_leaves_out_other_tasks(make_bundle: MakeBundle) -> None:
    registry.store(make_bundle("a", name="a"))
    registry.store(make_bundle("b", name="b", task="anomaly"))
    assert [tag.partition(":")[0] for tag in tags("a,b", ("classification",))] == ["a"]
    assert [tag.partition(":")[0] for tag in tags("", ("anomaly",))] == ["b"]
    assert tags("a,b", ("generation",)) == []


@pytest.mark.parametrize("tag", ["other", "tiny-linear:0123456789ab", "tiny", "TINY-LINEAR", "../models"])
def test_an_unknown_model_is_named_beside_those_there_are(make_bundle: MakeBundle, tag: str) -> None:
    entry = registry.store(make_bundle())
    for ask in (registry.find, registry.delete, lambda tag: registry.resolve(tag, ["classification"])):
        with pytest.raises(BundleError, match=f"model '{tag}' is not in the store; it holds {entry.tag}"):
            ask(tag)


def test_an_empty_store_says_how_to_fill_it() -> None:
    assert tags() == []
    with pytest.raises(BundleError, match=r"it holds nothing: run `duet train` or `duet models import` first"):
        registry.find("anything")


def test_models_of_other_projects_are_left_alone(make_bundle: MakeBundle) -> None:
    with bentoml.models.create("theirs:1"):
        pass
    entry = registry.store(make_bundle())
    assert registry.entries() == [entry]
    with pytest.raises(BundleError, match="model 'theirs' is not in the store"):
        registry.delete("theirs")
    assert bentoml.models.get("theirs:1").tag.name == "theirs"


def test_a_store_with_a_half_written_model_says_what_to_do(make_bundle: MakeBundle) -> None:
    entry = registry.store(make_bundle())
    (entry.path / "model.yaml").unlink()
    with pytest.raises(BundleError, match=r"the model store .*model\.yaml.*remove the folder"):
        registry.entries()


def test_delete_removes_one_version_and_the_older_one_becomes_the_newest(make_bundle: MakeBundle) -> None:
    old, new = registry.store(make_bundle("old")), registry.store(make_bundle("new", weight=2))
    assert registry.delete(new.tag) == new
    assert registry.entries() == [old]
    assert not new.path.exists()
    assert tags("tiny-linear:latest") == [old.tag]
    assert registry.delete("tiny-linear") == old
    assert registry.entries() == []


def test_delete_by_a_bare_name_is_refused_where_it_could_mean_two(make_bundle: MakeBundle) -> None:
    old, new = registry.store(make_bundle("old")), registry.store(make_bundle("new", weight=2))
    with pytest.raises(BundleError, match=f"2 versions: name one of {new.tag}, {old.tag}"):
        registry.delete("tiny-linear")
    assert registry.entries() == [new, old]


def test_an_exported_bundle_can_be_imported_elsewhere(make_bundle: MakeBundle, tmp_path: Path) -> None:
    entry = registry.store(make_bundle())
    archive = registry.export_archive("tiny-linear", tmp_path / "new folder" / "tiny.v1.tar.gz")
    assert archive == tmp_path / "new folder" / "tiny.v1.tar.gz"
    registry.delete(entry.tag)
    imported = registry.import_archive(archive)
    assert (imported.tag, imported.task) == (entry.tag, entry.task)
    assert load(imported.path).version == entry.version


def test_a_folder_can_be_imported(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    assert registry.import_archive(bundle.path).version == bundle.version


def test_a_damaged_bundle_is_not_exported(make_bundle: MakeBundle, tmp_path: Path) -> None:
    entry = registry.store(make_bundle())
    (entry.path / "card.md").write_text("changed")
    with pytest.raises(BundleError, match=r"card\.md"):
        registry.export_archive(entry.tag, tmp_path / "tiny.tar.gz")
    assert not (tmp_path / "tiny.tar.gz").exists()


def test_a_place_that_cannot_be_written_to_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    registry.store(make_bundle())
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"file/tiny\.tar\.gz: cannot be written"):
        registry.export_archive("tiny-linear", tmp_path / "file" / "tiny.tar.gz")


def test_an_archive_that_cannot_be_written_to_the_end_leaves_nothing(make_bundle: MakeBundle, tmp_path: Path) -> None:
    registry.store(make_bundle())
    (tmp_path / "tiny.tar.gz").mkdir()
    with pytest.raises(BundleError, match=r"tiny\.tar\.gz: cannot be written \(Is a directory\)"):
        registry.export_archive("tiny-linear", tmp_path / "tiny.tar.gz")
    assert not list(tmp_path.glob("*.part"))


def test_no_space_to_unpack_an_archive_is_no_damage(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.store(make_bundle())
    archive = registry.export_archive("tiny-linear", tmp_path / "tiny.tar.gz")
    registry.delete(entry.tag)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry, "unpack", full)
    with pytest.raises(BundleError, match=r"tiny\.tar\.gz: no space left in .* to unpack it; .*TMPDIR"):
        registry.import_archive(archive)
    assert registry.entries() == []


def test_a_damaged_bundle_is_not_imported(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "classify.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"classify\.onnx"):
        registry.import_archive(bundle.path)
    assert registry.entries() == []


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_a_damaged_archive_is_refused_or_gives_the_very_bundle(
    make_bundle: MakeBundle, tmp_path: Path, data: st.DataObject
) -> None:
    archive, damaged = tmp_path / "tiny.tar.gz", tmp_path / "damaged.tar.gz"
    if not archive.exists():
        registry.store(make_bundle())
        registry.export_archive("tiny-linear", archive)
    sound = archive.read_bytes()
    at = data.draw(st.integers(0, len(sound) - 1))
    if data.draw(st.booleans()):
        damaged.write_bytes(sound[:at])
    else:
        damaged.write_bytes(sound[:at] + bytes([sound[at] ^ data.draw(st.integers(1, 255))]) + sound[at + 1 :])
    for entry in registry.entries():
        registry.delete(entry.tag)
    try:
        entry = registry.import_archive(damaged)
    except BundleError:
        assert registry.entries() == []
    else:  # the damage met a time stamp, or padding
        assert load(entry.path).manifest == load(tmp_path / "tiny").manifest


def test_damage_in_the_middle_of_a_large_file_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    digits = np.random.default_rng(0).integers(0, 10, 100_000)
    (bundle.path / "large.txt").write_text("".join(map(str, digits)))
    entry = registry.store(seal(bundle.path, bundle.manifest))
    archive = registry.export_archive(entry.tag, tmp_path / "tiny.tar.gz")
    registry.delete(entry.tag)
    sound = archive.read_bytes()
    for at in range(1000, len(sound) - 1000, len(sound) // 20):
        archive.write_bytes(sound[:at] + b"\xff" * 64 + sound[at + 64 :])
        with pytest.raises(BundleError, match=r"tiny\.tar\.gz: "):
            registry.import_archive(archive)
    assert registry.entries() == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b" + bytes(20)])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.tar\.gz: not readable as a bundle archive"):
        registry.import_archive(tmp_path / "x.tar.gz")


def test_an_archive_that_holds_no_bundle_is_named(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "x.tar.gz", "w:gz").close()
    with pytest.raises(BundleError, match=rf"x\.tar\.gz.*{MANIFEST}: not found"):
        registry.import_archive(tmp_path / "x.tar.gz")


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../escaped", size=4),
        member("a/../../escaped", size=4),
        member("link", type=tarfile.SYMTYPE, linkname="../../escaped"),
        member("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ],
    ids=lambda info: info.name + info.linkname,
)
@pytest.mark.parametrize("filters", [True, False], ids=["of Python 3.11.4", "without filters"])
def test_an_archive_that_reaches_outside_is_refused(
    make_bundle: MakeBundle, tmp_path: Path, evil: tarfile.TarInfo, filters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        tar.add(make_bundle().path, ".")
        tar.addfile(evil, io.BytesIO(b"evil"))
    with pytest.raises(BundleError, match=r"evil\.tar\.gz: not readable as a bundle archive"):
        registry.import_archive(tmp_path / "evil.tar.gz")
    assert registry.entries() == []
    assert not list(tmp_path.rglob("escaped"))


def test_a_python_without_filters_unpacks_the_very_bundle(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    bundle = make_bundle()
    with tarfile.open(tmp_path / "good.tar.gz", "w:gz") as tar:
        tar.add(bundle.path, ".")
    assert load(registry.import_archive(tmp_path / "good.tar.gz").path).digest == bundle.digest


def test_a_link_in_a_bundle_is_stored_as_the_file_that_was_verified(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    shutil.move(bundle.path / "card.md", tmp_path / "elsewhere.md")
    (bundle.path / "card.md").symlink_to(tmp_path / "elsewhere.md")
    entry = registry.import_archive(bundle.path)
    assert not (entry.path / "card.md").is_symlink()
    assert load(entry.path).version == bundle.version
