"""A recorded trace of requests, to be replayed at the times at which they came.

A line is a JSON object: `{"at": 12.5, "route": "/classify", "items": 4}`. `at` is in seconds from any origin and does
not fall; `items` is 1 where it is absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FIELDS = {"at", "route", "items"}


@dataclass(frozen=True)
class Arrival:
    """A request of a trace: seconds after the first one, its route and its number of images or samples."""

    at: float
    route: str
    items: int


def read(path: Path, routes: set[str]) -> list[Arrival]:
    """The requests of a trace.

    Raises:
        ValueError: a line is wrong, with its number; or the file cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"trace {path}: it cannot be read ({error})") from None
    arrivals: list[Arrival] = []
    origin = 0.0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at, route, items = _fields(f"trace {path}, line {number}", line, routes)
        if not arrivals:
            origin = at
        elif at - origin < arrivals[-1].at:
            raise ValueError(f"trace {path}, line {number}: at is {at:g}, before the line above; sort the lines")
        arrivals.append(Arrival(at - origin, route, items))
    if not arrivals:
        raise ValueError(f"trace {path}: it has no lines")
    return arrivals


def _fields(where: str, line: str, routes: set[str]) -> tuple[float, str, int]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: it is not JSON ({error})") from None
    if not isinstance(found, dict) or not {"at", "route"} <= found.keys() <= FIELDS:
        raise ValueError(f'{where}: it must have the fields "at" and "route", and may have "items"')
    at, route, items = found["at"], found["route"], found.get("items", 1)
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e12:
        raise ValueError(f"{where}: at is {at!r}, and must be seconds, 0 or more")
    if route not in routes:
        raise ValueError(f"{where}: route is {route!r}; known are {', '.join(sorted(routes))}")
    if isinstance(items, bool) or not isinstance(items, int) or not 1 <= items <= 256:
        raise ValueError(f"{where}: items is {items!r}, and must be a whole number from 1 to 256")
    return float(at), route, items
