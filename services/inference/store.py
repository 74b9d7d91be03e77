"""Changes of BentoML's model store that other processes see whole or not at all.

A lock, `models.lock` beside the store's folder `models`, lets in one writer or any number of readers. A writer builds
a model in `models.writing`, on the same file system, and renames it into the store. What a killed writer leaves is
there too, and the next writer removes it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import bentoml

from services.inference.bundle import BundleError
from services.shims import model_store, model_store_folder


@contextmanager
def reading() -> Iterator[None]:
    """No process changes a model within this block; blocks may be nested.

    A store that has no lock file, or that this process may not open, is read without it: no process of Duet has
    written there, or the store is mounted read-only.
    """
    try:
        file = os.open(_beside("lock"), os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            _lock(file, shared=True)
        yield
    finally:
        os.close(file)


@contextmanager
def writing() -> Iterator[None]:
    """No other process reads or changes a model within this block, which must not contain `reading`.

    Raises:
        BundleError: a file could not be written, within the block too; every model is whole, or is gone.
    """
    try:
        file = os.open(_beside("lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file, shared=False)
            shutil.rmtree(_beside("writing"), ignore_errors=True)
            try:
                yield
            finally:
                shutil.rmtree(_beside("writing"), ignore_errors=True)
        finally:
            os.close(file)
    except OSError as error:
        raise BundleError(f"the model store {model_store_folder()} cannot be written: {_reason(error)}") from None


def put(tag: str, labels: Mapping[str, str], files: Mapping[str, Path]) -> Path:
    """Store a model, in place of one with the same tag; returns its folder. Only within `writing`.

    Args:
        tag: `name:version`.
        labels: of the model.
        files: what to copy, by path in the model's folder.
    """
    name, _, version = tag.partition(":")
    draft, folder = _beside("writing"), model_store_folder() / name / version
    made = draft / name / version
    with bentoml.models.create(tag, labels=dict(labels), _model_store=model_store(draft)):
        pass  # BentoML writes its own files; ours in its temporary folder would be copied twice
    for path, source in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, made / path)
    folder.parent.mkdir(exist_ok=True)
    try:
        if folder.exists():
            folder.rename(draft / "replaced")
        made.rename(folder)
    except OSError:
        _forget_if_empty(folder.parent)
        raise
    (draft / name / "latest").replace(folder.parent / "latest")
    return folder


def remove(tag: str) -> None:
    """Delete a model. Only within `writing`. It needs no space on the disk."""
    name, _, version = tag.partition(":")
    folder = model_store_folder() / name / version
    draft = _beside("writing")
    folder.rename(draft)
    shutil.rmtree(draft)
    others = sorted(bentoml.models.list(name), key=lambda model: model.creation_time)
    if others:
        draft.write_text(str(others[-1].tag.version))
        draft.replace(folder.parent / "latest")
    else:
        _forget_if_empty(folder.parent)


def _beside(kind: str) -> Path:
    folder = model_store_folder()
    return folder.with_name(f"{folder.name}.{kind}")


def _forget_if_empty(folder: Path) -> None:
    """Remove the folder of a name that has no versions."""
    if not any(path.is_dir() for path in folder.iterdir()):
        shutil.rmtree(folder)


def _lock(file: int, *, shared: bool) -> None:
    """Wait for the lock; closing the file, or the end of the process, gives it back."""
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415

        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def _reason(error: OSError) -> str:
    """What went wrong and the remedy."""
    number = error.errno
    if isinstance(error, shutil.Error):  # of a copied tree: it has a list of (source, target, text of an OSError)
        number = int(found[1]) if (found := re.search(r"Errno (\d+)", str(error))) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{os.strerror(errno.ENOSPC)}; free some space there"
    if number == errno.EXDEV:
        return "`models` is a file system of its own; mount it as the folder above, BENTOML_HOME"
    where = "" if error.filename is None else f" ({error.filename})"
    return f"{error.strerror or error}{where}; check this file, or name another folder with BENTOML_HOME"
