"""What several processes do to one model store, and what a full disk does: every reader sees whole bundles."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bentoml
import numpy as np
import pytest

from services.inference import registry
from services.inference.bundle import Bundle, BundleError, seal
from services.inference.store import writing
from tests.conftest import ROOT

MakeBundle = Callable[..., Bundle]
FULL_DISK = 'mount -t tmpfs -o size=256k tmpfs "$BENTOML_HOME" && exec "$@"'


@pytest.mark.parametrize("steps", [200, pytest.param(2000, marks=pytest.mark.nightly)])
def test_two_writers_a_deleter_and_a_reader(empty_store: Path, make_bundle: MakeBundle, steps: int) -> None:
    bundles = [make_bundle(f"{number}", weight=1 + number) for number in range(3)]
    bundles.append(make_bundle("other", name="other"))
    words = [str(empty_store), str(steps // 4), *(str(bundle.path) for bundle in bundles)]
    command = [sys.executable, "-m", "tests.services.inference.store_users", *words]
    users = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert users.returncode == 0, users.stderr
    done = sorted(line.split() for line in users.stdout.splitlines())
    assert [role for role, _ in done] == ["delete", "read", "write", "write"]
    assert min(int(count) for _, count in done) > 0
    assert not (empty_store.parent / "models.writing").exists()
    for entry in registry.entries():
        assert registry.load(entry.tag).version == entry.version
        assert bentoml.models.get(f"{entry.name}:latest").tag.version == registry.find(entry.name).version


def test_bentoml_lists_what_is_stored(empty_store: Path, make_bundle: MakeBundle) -> None:
    old, new = registry.store(make_bundle("old")), registry.store(make_bundle("new", weight=2))
    environment = os.environ | {"BENTOML_HOME": str(empty_store.parent), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "models", "list", "-o", "json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert {model["tag"] for model in json.loads(listed)} == {old.tag, new.tag}
    assert bentoml.models.get("tiny-linear:latest").tag.version == new.version
    registry.delete(new.tag)
    assert bentoml.models.get("tiny-linear:latest").tag.version == old.version
    registry.delete(old.tag)
    assert list(empty_store.iterdir()) == []


def test_what_a_killed_writer_left_is_no_model_and_is_removed(empty_store: Path, make_bundle: MakeBundle) -> None:
    child = os.fork()
    if child == 0:
        with writing():
            (empty_store.parent / "models.writing").mkdir()
            os._exit(0)  # as a signal ends it: nothing is removed
    os.waitpid(child, 0)
    assert registry.entries() == []
    entry = registry.store(make_bundle())
    assert registry.entries() == [entry]
    assert sorted(path.name for path in empty_store.parent.glob("models*")) == ["models", "models.lock"]


def test_a_store_that_cannot_be_written_is_read_and_named(
    tmp_path: Path, empty_store: Path, make_bundle: MakeBundle
) -> None:
    entry = registry.store(make_bundle())
    lock = tmp_path / "models.lock"
    lock.unlink()
    lock.mkdir()
    assert registry.entries() == [entry]
    for change in (lambda: registry.store(make_bundle("new", weight=2)), lambda: registry.delete(entry.tag)):
        with pytest.raises(
            BundleError, match=rf"the model store {empty_store} cannot be written: Is a directory \({lock}\); "
        ):
            change()
    assert registry.entries() == [entry]


def test_a_bundle_whose_file_vanishes_is_not_stored_in_part(empty_store: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    (bundle.path / "classify.onnx").unlink()
    with pytest.raises(BundleError, match=r"cannot be written: No such file or directory \(.*classify\.onnx\)"):
        registry.store(bundle)
    assert list(empty_store.iterdir()) == []


def test_a_full_disk_is_said_in_a_sentence_and_nothing_is_half_written(make_bundle: MakeBundle, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no mount namespace: run as root, with unshare (Debian: util-linux)")
    small, large = make_bundle("small"), make_bundle("large", weight=2)
    (large.path / "noise").write_bytes(np.random.default_rng(0).bytes(2**19))
    seal(large.path, large.manifest)
    home = tmp_path / "home"
    home.mkdir()
    small_too = make_bundle("too", weight=3)
    environment = os.environ | {"BENTOML_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200"}
    script = [sys.executable, "-m", "tests.services.inference.full_disk", home]
    command = ["unshare", "-m", "sh", "-ec", FULL_DISK, "sh", *script, small.path, large.path, small_too.path]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    full = f"error: the model store {home}/models cannot be written: No space left on device; free some space there"
    assert run.stderr.splitlines() == [full, full]
    said = [line for line in run.stdout.splitlines() if line.startswith(("stored", "deleted", "status"))]
    stored = f"stored tiny-linear:{small.version}", "status 0"
    deleted = f"deleted tiny-linear:{small.version}", "status 0"
    stored_too = f"stored tiny-linear:{small_too.version}", "status 0"
    assert said == [*stored, "status 1", "status 1", "status 0", *deleted, *stored_too]
    assert list(home.iterdir()) == []  # it was in the namespace alone


def test_a_store_that_is_a_file_system_of_its_own_is_named(
    empty_store: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(*_: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(BundleError, match="`models` is a file system of its own; mount it as the folder above"):
        registry.store(make_bundle())
    assert list(empty_store.iterdir()) == []
    assert not (empty_store.parent / "models.writing").exists()
