"""Files out of a tar archive that nobody has verified yet."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath


def unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, folder: Path) -> None:
    """Write one member of an archive as `name` below `folder`, and nothing outside of it.

    Python has a filter for this since 3.11.4. An older one, such as Debian 12's, unpacks files and folders alone.

    Raises:
        tarfile.TarError: it would be outside, or it is a device (or a link, without the filter).
    """
    if hasattr(tarfile, "data_filter"):
        tar.extract(member.replace(name=name), folder, filter="data")
        return
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{name!r} is outside of the folder")
    source = tar.extractfile(member) if member.isfile() else None
    if source is not None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with source, (folder / path).open("wb") as target:
            shutil.copyfileobj(source, target)
    elif member.isdir():
        (folder / path).mkdir(parents=True, exist_ok=True)
    else:
        raise tarfile.TarError(f"{name!r} is neither a file nor a folder")
