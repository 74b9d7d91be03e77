"""`duet models` in a store on a file system that is full; the first argument is an empty tmpfs, and BENTOML_HOME."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from services.commands.models import app


def duet(*words: str) -> None:
    """One command: what it says and its status."""
    try:
        app(words)
    except SystemExit as end:
        sys.stdout.flush()
        print("status", end.code, flush=True)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "tmp" not in path.parts[len(folder.parts) :])


def main(home: Path, small: str, large: str, small_too: str) -> None:
    duet("import", small)
    before = files(home)
    duet("import", large)
    assert files(home) == before
    with suppress(OSError), (home / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"\0" * 512):
            pass
    duet("import", small_too)
    assert files(home) == sorted([*before, home / "filler"])
    duet("list")
    duet("delete", "tiny-linear", "--yes")
    assert list((home / "models").iterdir()) == []
    (home / "filler").unlink()
    duet("import", small_too)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
