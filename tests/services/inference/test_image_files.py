from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.inference.image_files import SYSTEM, find


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_each_kind_of_entry_is_sorted_in(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.PNG", "a/deep/y.Jpeg", "a/z.jpg", "a.png/in.png", "a/notes.txt", "README", "c/.keep")
    touch(tmp_path, "a/._z.jpg", ".git/x.png", "a/@eaDir/z.jpg/thumb.jpg", "Lost+Found/q.png")
    (tmp_path / "a" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "a" / "itself.png").symlink_to("itself.png")
    (tmp_path / "eel").symlink_to("unmounted")
    (tmp_path / "a" / "gone.txt").symlink_to("nowhere.txt")
    (tmp_path / "a" / "link.png").symlink_to("z.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    found = find(tmp_path)
    assert [path.as_posix() for path in found.images] == [
        "a/deep/y.Jpeg", "a/link.png", "a/z.jpg", "a.png/in.png", "b/x.PNG"
    ]  # fmt: skip
    assert [path.as_posix() for path in found.missing] == ["a/gone.png", "a/itself.png", "a/pipe.png", "eel"]
    assert [path.as_posix() for path in found.other] == ["README", "a/gone.txt", "a/notes.txt"]
    assert [path.as_posix() for path in found.system] == ["Lost+Found", "a/@eaDir"]
    assert [path.as_posix() for path in found.folders] == ["a", "a.png", "b", "c"]
    assert found.repeated == []


def test_a_folder_is_read_once_and_by_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "root/z/x.png", "elsewhere/y.png")
    for name, target in {"a": "z", "up": "..", "self": ".", "b": "../elsewhere", "c": "../elsewhere"}.items():
        (tmp_path / "root" / name).symlink_to(target)
    found = find(tmp_path / "root")
    assert [path.as_posix() for path in found.images] == ["b/y.png", "z/x.png"]
    assert [path.as_posix() for path in found.repeated] == ["a", "c", "self", "up"]
    assert found.skipped() == ["skipped 4 links to folders that are read already, such as a"]


@pytest.mark.parametrize("name", sorted(SYSTEM))
def test_what_systems_make_is_told(name: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{name.upper()}/x.png", "y.png")
    found = find(tmp_path)
    assert found.images == [Path("y.png")]
    assert found.skipped() == [f"skipped 1 folders of a system or file server, such as {name.upper()}"]
