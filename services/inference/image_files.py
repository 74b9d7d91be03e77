"""Which files of a folder are images: one rule for training, evaluation and `duet predict`.

An image is a file that ends in .png, .jpg or .jpeg, in any case, at any depth. A folder is a folder whatever its name.
Names that start with a dot are ignored, and so are the folders that systems and file servers make for themselves.
Links are followed, and each folder is read once.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg"})
SYSTEM = frozenset({  # in lower case: of Synology, QNAP, Linux, Windows, and of archives from macOS
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "lost+found", "$recycle.bin",
    "system volume information", "__macosx",
})  # fmt: skip


@dataclass
class Found:
    """What a folder has; all paths are relative to it and sorted, and none starts with a dot.

    Args:
        images: files with an image's extension.
        missing: links to nothing, pipes and devices with an image's extension, and links to nothing without extension.
        other: other files.
        system: folders of systems and file servers, which are not read.
        repeated: links to folders that are read under another name already, or that the link is in.
        folders: folders directly below, in which images may be.
    """

    images: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    other: list[Path] = field(default_factory=list)
    system: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def skipped(self) -> list[str]:
        """A sentence for each kind of folder that was not read."""
        said = []
        if self.system:
            said.append(f"skipped {len(self.system)} folders of a system or file server, such as {self.system[0]}")
        if self.repeated:
            links = f"skipped {len(self.repeated)} links to folders that are read already"
            said.append(f"{links}, such as {self.repeated[0]}")
        return said


def find(root: Path) -> Found:
    """Search the folder `root`.

    Raises:
        OSError: a folder cannot be read.
    """
    found = Found()
    read = {_identity(folder) for folder in root.resolve().parents}  # a link upwards is a loop
    folders, links = deque([Path()]), deque[Path]()
    while folders or links:  # links last, so that an image has the name without a link, where it has one
        folder = folders.popleft() if folders else links.popleft()
        identity = _identity(root / folder)
        if identity in read:
            found.repeated.append(folder)
            continue
        read.add(identity)
        if len(folder.parts) == 1:
            found.folders.append(folder)
        for name in sorted(os.listdir(root / folder)):
            if not name.startswith("."):
                _sort_in(root, folder / name, found, folders, links)
    for paths in (found.images, found.missing, found.other, found.system, found.repeated, found.folders):
        paths.sort()
    return found


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _sort_in(root: Path, path: Path, found: Found, folders: deque[Path], links: deque[Path]) -> None:
    whole = root / path
    if whole.is_dir():
        if path.name.casefold() in SYSTEM:
            found.system.append(path)
        else:
            (links if whole.is_symlink() else folders).append(path)
        return
    dangling = whole.is_symlink() and not whole.exists()
    if path.suffix.lower() not in EXTENSIONS and not (dangling and not path.suffix):
        found.other.append(path)
    elif whole.is_file():
        found.images.append(path)
    else:
        found.missing.append(path)
