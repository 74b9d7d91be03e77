"""The store of bundles: BentoML's model store. A bundle has the tag `name:version`; the version begins its digest."""

from __future__ import annotations

import errno
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from services.inference import bundle as bundles
from services.inference.bundle import MANIFEST, SIGNATURE, Bundle, BundleError, Task
from services.inference.store import put, reading, remove, writing
from services.inference.unpack import unpack
from services.shims import model_store_folder

LABEL = "duet.task"
REFERENCE = Path(__file__).parents[1] / "reference"  # bundles that are part of an install
REFERENCE_DEFAULTS = ("mnist-cnn", "mnist-cvae", "mnist-gan", "mnist-scorer")  # for requests that name no model


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
    """Every bundle in the store, newest first; models that Duet did not store are left out.

    Raises:
        BundleError: a model in the store, of Duet or not, is incomplete.
    """
    with reading():
        return _listed()


def _listed() -> list[Entry]:
    try:
        stored = [model for model in bentoml.models.list() if LABEL in model.info.labels]
    except BentoMLException as error:
        raise BundleError(
            f"the model store (BENTOML_HOME/models) cannot be read: {error}; "
            "remove the folder that an interrupted write left there, then import or export its model again"
        ) from None
    newest_first = sorted(stored, key=lambda model: model.info.creation_time, reverse=True)
    return [
        Entry(model.tag.name, model.tag.version or "", model.info.labels[LABEL], Path(model.path))
        for model in newest_first
    ]


def all_reference(served: Iterable[Entry]) -> bool:
    """Whether all of these bundles have the names of reference bundles."""
    names = {path.parent.name for path in REFERENCE.glob(f"*/{MANIFEST}")}
    return all(entry.name in names for entry in served)


def install_reference_bundles(tasks: Iterable[Task]) -> list[Entry]:
    """Store the reference bundles for those of `tasks` that have no model in the store; returns the new entries.

    A store with any other bundle stays as it is: its owner has other data than the reference bundles.

    Raises:
        BundleError: a reference bundle does not verify, or the store refused it.
    """
    stored = entries()
    missing = set(tasks) - {entry.task for entry in stored}
    if not missing:  # the usual case; loading verifies, which takes a tenth of a second
        return []
    brought = [bundles.load(path.parent) for path in sorted(REFERENCE.glob(f"*/{MANIFEST}"))]
    if {entry.tag for entry in stored} - {f"{bundle.name}:{bundle.version}" for bundle in brought}:
        return []
    return [store(bundle) for bundle in brought if bundle.manifest.task in missing]


def resolve(
    selection: str, tasks: Iterable[Task], stored: list[Entry] | None = None, place: str = "the store"
) -> list[Entry]:
    """The bundles to serve for `tasks`, by name, the newest version of a name first.

    Args:
        selection: comma-separated `name` or `name:version`; empty selects the newest of every name.
        tasks: entries of other tasks are left out, so that one selection configures every service. One whose task is
            not known stays: it is not served, and the service says why.
        stored: what there is to choose from, the newest first; None: the store's.
        place: where that is, for the error.

    Raises:
        BundleError: a selected bundle is not there.
    """
    stored = entries() if stored is None else stored
    wanted = {*tasks, ""}
    if not selection.strip():
        newest: dict[str, Entry] = {}
        for entry in stored:
            newest.setdefault(entry.name, entry)
        chosen = list(newest.values())
    else:
        chosen = [find(part.strip(), stored, place) for part in selection.split(",") if part.strip()]
    kept = [entry for entry in stored if entry in chosen and entry.task in wanted]
    return sorted(kept, key=lambda entry: entry.name)  # the newest version of a name stays first


def find(tag: str, stored: list[Entry] | None = None, place: str = "the store") -> Entry:
    """The newest bundle of `name`, or the one of `name:version` (`name:latest` is the newest).

    Raises:
        BundleError: there is none; the message lists the bundles in that place.
    """
    stored = entries() if stored is None else stored
    name, _, version = tag.partition(":")
    for entry in stored:
        if entry.name == name and version in ("", "latest", entry.version):
            return entry
    have = ", ".join(entry.tag for entry in stored) or "nothing: run `duet train` or `duet models import` first"
    raise BundleError(f"model {tag!r} is not in {place}; it holds {have}")


def load(tag: str) -> Bundle:
    """Find and verify a bundle; no process changes it meanwhile.

    Raises:
        BundleError: there is none, or it does not verify.
    """
    with reading():
        return verified(find(tag))


def verified(entry: Entry) -> Bundle:
    """The bundle of an entry.

    Raises:
        BundleError: it does not verify, or it is of another version.
    """
    with reading():
        bundle = bundles.load(entry.path)
    if bundle.version != entry.version:
        raise BundleError(f"{entry.path}: holds version {bundle.version}, not {entry.version}; import it again")
    return bundle


def store(bundle: Bundle) -> Entry:
    """Copy the files of a bundle into the store, its signature too.

    An undamaged copy with the same digest stays, unless its signature is another one. A damaged copy is replaced.

    Raises:
        BundleError: the store cannot write the bundle.
    """
    tag, signed = f"{bundle.name}:{bundle.version}", _signature(bundle)
    entry = Entry(
        bundle.name, bundle.version, bundle.manifest.task, model_store_folder() / bundle.name / bundle.version
    )
    with writing():
        with suppress(BundleError, BentoMLException):
            if bentoml.models.list(tag):
                kept = bundles.load(entry.path)
                if kept.digest == bundle.digest and (not signed or signed == _signature(kept)):
                    return entry
        names = (MANIFEST, *bundle.manifest.files, *([SIGNATURE] if signed else []))
        labels = {LABEL: bundle.manifest.task, "duet.digest": bundle.digest}
        put(tag, labels, {name: bundle.path / name for name in names})
    return entry


def _signature(bundle: Bundle) -> bytes:
    path = bundle.path / SIGNATURE
    return path.read_bytes() if path.exists() else b""


def delete(tag: str) -> Entry:
    """Remove one version; a name without a version is refused if it has several versions.

    Raises:
        BundleError: no such bundle, or several.
    """
    name, _, version = tag.partition(":")
    with writing():
        stored = _listed()
        versions = [entry.tag for entry in stored if entry.name == name]
        if not version and len(versions) > 1:
            raise BundleError(f"model {name!r} has {len(versions)} versions: name one of {', '.join(versions)}")
        entry = find(tag, stored)
        remove(entry.tag)
    return entry


def export_archive(tag: str, archive: Path) -> Path:
    """Write a stored bundle to a `.tar.gz` file after verifying it; returns its path.

    Raises:
        BundleError: no such bundle, one that does not verify, or a file that cannot be written.
    """
    part = archive.with_name(f"{archive.name}.part")
    with reading():
        bundle = load(tag)
        try:
            archive.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(part, "w:gz") as tar:
                tar.add(bundle.path, ".")
            part.replace(archive)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise BundleError(f"{archive}: cannot be written ({error.strerror}); choose another file") from None
    return archive


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
                for member in tar:
                    unpack(tar, member, member.name, Path(scratch))
        except (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise BundleError(
                    f"{source}: no space left in {Path(scratch).parent} to unpack it; "
                    "free some, or name another folder with TMPDIR"
                ) from None
            # tarfile raises the last two for a damaged name or time stamp
            raise BundleError(f"{source}: not readable as a bundle archive ({error}); export it again") from None
        try:
            bundle = bundles.load(Path(scratch))
        except BundleError as error:
            raise BundleError(f"{source}: {error}".replace(f"{scratch}/", "")) from None
        return store(bundle)
