"""A folder of bundles that is served in place of the store, and never written: an image volume, or KServe's mount."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from services.inference import registry
from services.inference.bundle import MANIFEST, NAME, NAME_RULE, TASKS, BundleError
from services.inference.registry import Entry
from services.settings import Settings

UNREADABLE = "unreadable"  # the version of a bundle whose manifest does not say it
DIGEST = re.compile(r"[0-9a-f]{64}")


def place(settings: Settings) -> str:
    """Where the bundles are, for messages."""
    return f"DUET_BUNDLES ({settings.bundles})" if settings.bundles else "the store"


def available(settings: Settings) -> list[Entry]:
    """The bundles that may be served, the newest first: those of DUET_BUNDLES, or else of the store.

    Raises:
        BundleError: there is no such folder, it holds no bundle, or DUET_BUNDLE_NAME does not fit.
    """
    if not settings.bundles:
        return registry.entries()
    try:
        found = entries(Path(settings.bundles))
    except BundleError as error:
        raise BundleError(f"DUET_BUNDLES: {error}") from None
    if not settings.bundle_name:
        return found
    if not NAME.fullmatch(settings.bundle_name):
        raise BundleError(f"DUET_BUNDLE_NAME: {settings.bundle_name!r}: {NAME_RULE}")
    names = sorted({entry.name for entry in found})
    if len(names) > 1:
        raise BundleError(
            f"DUET_BUNDLE_NAME: {settings.bundle_name!r} can rename one model, but {place(settings)} holds "
            f"{', '.join(names)}; leave it empty"
        )
    return [Entry(settings.bundle_name, entry.version, entry.task, entry.path) for entry in found]


def entries(folder: Path) -> list[Entry]:
    """The bundles in a folder, not yet verified; of several versions of a name, that of the last folder comes first.

    The folder is a bundle itself, or NAME/ or NAME/VERSION/ below it are, whatever those folders are called: a manifest
    says what a bundle is. One that cannot be read is an entry without a task, so that its service says why.

    Raises:
        BundleError: there is no such folder, or it holds no bundle.
    """
    try:
        found = list(_bundles(folder, 2))
    except OSError as error:
        raise BundleError(f"{error.filename}: {error.strerror}; name a folder of bundles that can be read") from None
    if not found:
        raise BundleError(
            f"{folder} holds no bundle: there is no {MANIFEST}, NAME/{MANIFEST} or "
            f"NAME/VERSION/{MANIFEST}; mount a bundle there, or get one with `duet models pull --into {folder}`"
        )
    unique = {entry.tag: entry for entry in map(_entry, found)}
    return list(reversed(unique.values()))


def _bundles(folder: Path, depth: int) -> Iterator[Path]:
    names = sorted((path.name for path in folder.iterdir()), key=_natural)
    if MANIFEST in names or any(name.endswith(".onnx") for name in names):  # without a manifest it is a damaged one
        yield folder
    elif depth:
        for name in names:
            # Hidden folders are unfinished copies, or those behind the links of a mounted ConfigMap.
            if not name.startswith(".") and name != "lost+found" and (folder / name).is_dir():
                yield from _bundles(folder / name, depth - 1)


def _natural(name: str) -> list[str | int]:
    """10 comes after 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _entry(path: Path) -> Entry:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        name, task, digest = (str(manifest[field]) for field in ("name", "task", "digest"))
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        name = task = digest = ""
    if task in TASKS and NAME.fullmatch(name) and DIGEST.fullmatch(digest):
        return Entry(name, digest[:12], task, path)
    return Entry(path.name, UNREADABLE, "", path)
