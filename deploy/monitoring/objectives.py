"""The objectives in `slo.yaml`, read and checked; a mistake is told with its line and with what is allowed.

The format is the part of Sloth's `prometheus/v1` that is used here, so Sloth reads the file too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.telemetry.metrics import FAST

FILE = Path(__file__).parent / "slo.yaml"
VERSION = "prometheus/v1"
WINDOW = "{{.window}}"  # Sloth's placeholder in queries
SEVERITIES = ("page", "ticket")
BOUND = re.compile(r'\ble="([^"]*)"')
BOUNDS = [f"{bound}" for bound in FAST]  # as they are shown
ROUTES = re.compile(r'\broute=~"([^"]*)"')
NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

# What each key holds: a kind, the keys of a mapping, or what a list holds.
TEXTS = dict[str, str]
ALERT = {"labels": TEXTS, "annotations": TEXTS}
SLO = {
    "name": str,
    "objective": float,
    "description": str,
    "labels": TEXTS,
    "sli": {"events": {"error_query": str, "total_query": str}},
    "alerting": {"name": str, **ALERT, "page_alert": ALERT, "ticket_alert": ALERT},
}
SPECIFICATION = {"version": str, "service": str, "labels": TEXTS, "slos": [SLO]}
OPTIONAL = {"labels", "annotations", "page_alert", "ticket_alert"}
KINDS = {str: ("a text", {"str"}), float: ("a number", {"int", "float"})}

Place = tuple[str | int, ...]  # keys and indices from the top of the file


class ObjectivesError(Exception):
    """What is wrong in a file of objectives: file, line, place, value, and what is allowed."""


class _Mistake(Exception):
    """A mistake on a line, counted from 0."""

    def __init__(self, line: int, place: Place, what: str, allowed: str) -> None:
        named = ".".join(str(part) for part in place) or "the file"
        super().__init__(f"{named}: {what}; allowed: {allowed}")
        self.line = line


@dataclass(frozen=True)
class Objective:
    """A service level objective.

    Attributes:
        service, name: what it is about.
        percent: of the events that have to be good, between 0 and 100.
        description: one sentence.
        error_query, total_query: events a second, with `WINDOW` in place of the window.
        alert: name of its alerts.
        labels: of its recordings and alerts.
        alert_labels, annotations: of its alerts, by severity.
        seconds: a request that takes longer is bad; None: the objective is not about latency.
        routes: a regular expression of the routes whose requests count; empty: the query names none.
    """

    service: str
    name: str
    percent: float
    description: str
    error_query: str
    total_query: str
    alert: str
    labels: Mapping[str, str]
    alert_labels: Mapping[str, Mapping[str, str]]
    annotations: Mapping[str, Mapping[str, str]]
    seconds: float | None
    routes: str

    @property
    def id(self) -> str:
        """As Sloth makes it."""
        return f"{self.service}-{self.name}"

    @property
    def budget(self) -> float:
        """The share of the events that may be bad."""
        return round(1 - self.percent / 100, 10)


def read(path: Path = FILE) -> list[Objective]:
    """The objectives in a file.

    Raises:
        ObjectivesError: the file cannot be read, or something in it is not allowed.
    """
    lines: dict[Place, int] = {}
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
        if root is None:
            raise _Mistake(0, (), "it is empty", ", ".join(SPECIFICATION))
        content = _value(root, (), SPECIFICATION, lines)
        return _objectives(content, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise ObjectivesError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None)
        raise ObjectivesError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {reason}") from None
    except _Mistake as mistake:
        raise ObjectivesError(f"{path}:{mistake.line + 1}: {mistake}") from None


def _value(node: yaml.Node, place: Place, wanted: Any, lines: dict[Place, int]) -> Any:
    """What a node holds, if that is what is wanted; the line of each place is noted."""
    lines[place] = line = node.start_mark.line
    if isinstance(wanted, list):
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise _Mistake(line, place, "no list with an entry", "a list of one or more")
        return [_value(item, (*place, number), wanted[0], lines) for number, item in enumerate(node.value)]
    if wanted is str or wanted is float:
        lines[place] += getattr(node, "style", None) in ("|", ">")  # the text begins on the next line
        allowed, tags = KINDS[wanted]
        if not isinstance(node, yaml.ScalarNode) or node.tag.rpartition(":")[2] not in tags or not node.value.strip():
            raise _Mistake(line, place, f"{str(node.value)[:40]!r} is not {allowed}", allowed)
        return wanted(node.value.strip())
    keys = None if wanted is TEXTS else wanted
    if not isinstance(node, yaml.MappingNode):
        raise _Mistake(line, place, "no mapping", "a mapping of " + ("texts" if keys is None else ", ".join(keys)))
    found: dict[str, Any] = {}
    for key, item in node.value:
        name = str(key.value)
        if keys is not None and name not in keys:
            raise _Mistake(key.start_mark.line, (*place, name), "an unknown key", ", ".join(keys))
        if name in found:
            raise _Mistake(key.start_mark.line, (*place, name), "a key that is there twice", "each key once")
        found[name] = _value(item, (*place, name), str if keys is None else keys[name], lines)
    for key in keys or ():
        if key not in found and key not in OPTIONAL:
            raise _Mistake(line, (*place, key), "it is missing", f"{', '.join(keys)}, all but {', '.join(OPTIONAL)}")
    return found


def _objectives(content: dict[str, Any], lines: Mapping[Place, int]) -> list[Objective]:
    if content["version"] != VERSION:
        raise _Mistake(lines["version",], ("version",), f"{content['version']!r}", VERSION)
    found: list[Objective] = []
    for number, slo in enumerate(content["slos"]):
        place: Place = ("slos", number)
        name, percent = slo["name"], slo["objective"]
        if not NAME.fullmatch(name):
            allowed = "lower-case letters and digits, with hyphens between them"
            raise _Mistake(lines[*place, "name"], (*place, "name"), f"{name!r}", allowed)
        if name in [other.name for other in found]:
            raise _Mistake(lines[*place, "name"], (*place, "name"), f"{name!r} is there twice", "each name once")
        if not 0 < percent < 100:
            allowed = "a percentage above 0 and below 100, for at 100 no request may ever fail"
            raise _Mistake(lines[*place, "objective"], (*place, "objective"), f"{percent:g}", allowed)
        events, alerting = slo["sli"]["events"], slo["alerting"]
        for key, query in events.items():
            _check_query(query, (*place, "sli", "events", key), lines)
        bounds = {float(bound) for bound in BOUND.findall(events["error_query"])}
        routes = ROUTES.search(events["total_query"])
        alerts = {severity: alerting.get(f"{severity}_alert", {}) for severity in SEVERITIES}
        found.append(
            Objective(
                service=content["service"],
                name=name,
                percent=percent,
                description=slo["description"],
                **events,
                alert=alerting["name"],
                labels=content.get("labels", {}) | slo.get("labels", {}),
                alert_labels={
                    severity: alerting.get("labels", {}) | of.get("labels", {}) for severity, of in alerts.items()
                },
                annotations={
                    severity: alerting.get("annotations", {}) | of.get("annotations", {})
                    for severity, of in alerts.items()
                },
                seconds=min(bounds, default=None),
                routes=routes[1] if routes else "",
            )
        )
    return found


def _check_query(query: str, place: Place, lines: Mapping[Place, int]) -> None:
    line = lines[place]
    if WINDOW not in query:
        raise _Mistake(line, place, "a query without a window", f"{WINDOW} as the window of each range")
    if len(set(BOUND.findall(query))) > 1:
        raise _Mistake(line, place, "several thresholds", "one threshold in an objective")
    for found in BOUND.finditer(query):
        if found[1] not in BOUNDS:
            line += query.count("\n", 0, found.start())
            raise _Mistake(line, place, f'no bucket ends at the threshold le="{found[1]}"', ", ".join(BOUNDS))
