"""The store of bundles: BentoML's model store, a tag `name:version` a bundle; the version begins its digest."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import bentoml
from bentoml.exceptions import BentoMLException, NotFound

from services.inference import bundle as bundles
from services.inference.bundle import Bundle, BundleError, Task

LABEL = "duet.task"


@dataclass(frozen=True)
class Entry:
    """A stored bundle, not yet verified."""

    name: str
    version: str
    task: Task
    path: Path

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"


def entries() -> list[Entry]:
    """Every bundle in the store, newest first; models that Duet did not store are left out."""
    stored = (model for model in bentoml.models.list() if LABEL in model.info.labels)
    newest_first = sorted(stored, key=lambda model: model.info.creation_time, reverse=True)
    return [
        Entry(model.tag.name, model.tag.version or "", cast("Task", model.info.labels[LABEL]), Path(model.path))
        for model in newest_first
    ]


def resolve(selection: str, tasks: Iterable[Task]) -> list[Entry]:
    """The bundles to serve for `tasks`.

    Args:
        selection: comma-separated `name` or `name:version`; empty selects the newest of every name.
        tasks: entries of other tasks are left out, so that one selection configures every service.

    Raises:
        BundleError: a selected bundle is not in the store.
    """
    stored = entries()
    wanted = set(tasks)
    if not selection.strip():
        newest: dict[str, Entry] = {}
        for entry in stored:
            newest.setdefault(entry.name, entry)
        chosen = list(newest.values())
    else:
        chosen = [find(part.strip(), stored) for part in selection.split(",") if part.strip()]
    return sorted((entry for entry in chosen if entry.task in wanted), key=lambda entry: entry.tag)


def find(tag: str, stored: list[Entry] | None = None) -> Entry:
    """The newest bundle of `name`, or the one of `name:version` (`name:latest` is the newest).

    Raises:
        BundleError: there is none; the message lists what there is.
    """
    stored = entries() if stored is None else stored
    name, _, version = tag.partition(":")
    for entry in stored:
        if entry.name == name and version in ("", "latest", entry.version):
            return entry
    have = ", ".join(entry.tag for entry in stored) or "nothing: run `duet train` or `duet models import` first"
    raise BundleError(f"model {tag!r} is not in the store; it holds {have}")


def store(bundle: Bundle) -> Entry:
    """Copy a verified bundle into the store; storing the same digest again changes nothing.

    Raises:
        BundleError: the store refused it.
    """
    tag = f"{bundle.name}:{bundle.version}"
    try:
        bentoml.models.get(tag)
    except NotFound:
        labels = {LABEL: bundle.manifest.task, "duet.digest": bundle.digest}
        try:
            with bentoml.models.create(tag, labels=labels) as model:
                shutil.copytree(bundle.path, model.path, dirs_exist_ok=True)
        except BentoMLException as error:
            raise BundleError(f"model {tag}: the store refused it: {error}") from None
    return find(tag)


def delete(tag: str) -> Entry:
    """Remove one version; a bare name is refused when it has several versions.

    Raises:
        BundleError: no such bundle, or several.
    """
    name, _, version = tag.partition(":")
    versions = [entry.tag for entry in entries() if entry.name == name]
    if not version and len(versions) > 1:
        raise BundleError(f"model {name!r} has {len(versions)} versions: name one of {', '.join(versions)}")
    entry = find(tag)
    bentoml.models.delete(entry.tag)
    return entry


def export_archive(tag: str, archive: Path) -> Path:
    """Write a stored bundle to a `.tar.gz` file after verifying it; returns its path."""
    bundle = bundles.load(find(tag).path)
    stem = archive.name.removesuffix(".gz").removesuffix(".tar")
    made = shutil.make_archive(str(archive.with_name(stem)), "gztar", root_dir=bundle.path)
    return Path(made)


def import_archive(source: Path) -> Entry:
    """Verify and store a bundle from a `.tar.gz` file or a directory.

    Raises:
        BundleError: unreadable archive, or a bundle that does not verify.
    """
    if source.is_dir():
        return store(bundles.load(source))
    with tempfile.TemporaryDirectory(prefix="duet-import-") as scratch:
        try:
            with tarfile.open(source) as tar:
                tar.extractall(scratch, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise BundleError(f"{source}: not a readable bundle archive ({error}); export it again") from None
        return store(bundles.load(Path(scratch)))
