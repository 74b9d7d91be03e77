"""The header of resumable results: everything that they depend on, so that a resume never mixes recipes or versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib.metadata import version
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """The first field in which two headers differ, such as `recipes.cnn.epochs`; a missing value is None."""

    field: str
    found: Any
    wanted: Any


def header(**values: Any) -> dict[str, Any]:
    """`values` as JSON keeps them, recipes with all of their fields, and the versions that results depend on."""
    versions = {name: version(name) for name in ("duet", "torch")}
    canonical: dict[str, Any] = json.loads(json.dumps({**values, "versions": versions}, default=_fields))
    return canonical


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> Difference | None:
    """The first difference of two headers, in the order of their fields' names; None if they are equal."""
    for key in sorted(found.keys() | wanted.keys()):
        ours, theirs = found.get(key), wanted.get(key)
        if ours == theirs:
            continue
        if all(isinstance(side, Mapping | None) for side in (ours, theirs)):
            if (inner := difference(ours or {}, theirs or {}, f"{within}{key}.")) is not None:
                return inner
            continue  # an empty group is as good as none
        return Difference(f"{within}{key}", ours, theirs)
    return None


def _fields(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **vars(value)}  # not asdict, which forgets the kinds of inner recipes
    raise TypeError(f"{value!r} is no JSON value and no recipe")
