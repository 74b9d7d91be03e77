"""Rules and Alertmanager's configuration with every length of time divided, so that a drill takes minutes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LENGTH = r"(\d+)([smhd])"
WAITS = ("group_wait", "group_interval", "repeat_interval")


def rules(content: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """Rules whose windows, offsets and `for` are divided by a factor; names of recorded series stay.

    Floors that count the events of a window multiply a rate by its length, which is divided too.
    """
    return {
        "groups": [{**group, "rules": [_rule(rule, factor) for rule in group["rules"]]} for group in content["groups"]]
    }


def alertmanager(content: Mapping[str, Any], factor: int, webhook: str) -> dict[str, Any]:
    """A configuration whose waits are divided, and whose receivers are paths of one address."""
    receivers = [
        {"name": one["name"], "webhook_configs": [{"url": f"{webhook}/{one['name']}"}]} for one in content["receivers"]
    ]
    return {**content, "route": _route(content["route"], factor), "receivers": receivers}


def length(text: str, factor: int) -> str:
    """A length such as 5m, divided, in whole milliseconds."""
    found = re.fullmatch(LENGTH, text)
    if found is None:
        raise ValueError(f"{text!r} is no length of time")
    return f"{round(1000 * int(found[1]) * UNITS[found[2]] / factor)}ms"


def _rule(rule: Mapping[str, Any], factor: int) -> dict[str, Any]:
    expr = re.sub(rf"\[{LENGTH}\]", lambda found: f"[{length(found[0][1:-1], factor)}]", rule["expr"])
    expr = re.sub(rf"offset {LENGTH}", lambda found: f"offset {length(found[0][7:], factor)}", expr)
    expr = re.sub(r"\* (\d+) >=", lambda found: f"* {int(found[1]) / factor:g} >=", expr)
    held = {"for": length(rule["for"], factor)} if "for" in rule else {}
    return {**rule, "expr": expr, **held}


def _route(route: Mapping[str, Any], factor: int) -> dict[str, Any]:
    waits = {name: length(route[name], factor) for name in WAITS if name in route}
    below = {"routes": [_route(one, factor) for one in route["routes"]]} if "routes" in route else {}
    return {**route, **waits, **below}
