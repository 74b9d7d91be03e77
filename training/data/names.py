"""Names of data sets: of the built-in ones, of folders, and in the names of bundles."""

from __future__ import annotations

import re

BUILT_IN = ("digits", "mnist", "fashion-mnist")
FOLDER = "folder-"  # before the name of a folder that is called like a built-in set


def slug(name: str) -> str:
    """`name` in lower case, at most 50 characters; each run of characters other than a-z and 0-9 becomes one dash."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:50].strip("-") or "data"


def of_folder(name: str) -> str:
    """The name of the data set in a folder called `name`.

    Recipes, gates and names of bundles go by the name of the data set, so none has that of a built-in set.
    """
    return f"{FOLDER}{name}" if slug(name) in BUILT_IN else name


def spec(name: str) -> str:
    """What `--dataset` takes for the data set `name`; the name of a folder stands for its path."""
    if name in BUILT_IN:
        return name
    own = name.removeprefix(FOLDER)
    return f"folder:{own if slug(own) in BUILT_IN else name}"
