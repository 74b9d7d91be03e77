"""Grafana's dashboards as data: panels in rows of 24 columns, one data source and two filters for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.monitoring.runbook import SITE, runbook

COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FILTERS = ("namespace", "job")
OF = ",".join(f'{name}=~"${name}"' for name in FILTERS)  # in every query
REPLICAS = f"duet_ready{{{OF}}}"


@dataclass(frozen=True)
class Query:
    """A query of Prometheus, and the name of each line that it gives."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A picture of some queries.

    Attributes:
        title: of the panel.
        queries: what it shows.
        unit: Grafana's name of the unit.
        kind: timeseries, stat or table.
        limits: values that may not be passed, drawn as lines; a promise, or the limit of an alert.
        below: the limits are lower ones.
        alert: the alert whose section of the runbook helps.
        exemplars: requests are shown in the picture.
        width: columns.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str
    kind: str = "timeseries"
    limits: tuple[float, ...] = ()
    below: bool = False
    alert: str = ""
    exemplars: bool = False
    width: int = 8


def dashboard(name: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """What Grafana imports; its uid stays the same, so that links to it do.

    Args:
        name: of the file, and the end of the uid.
        title: of the page.
        panels: from left to right, from top to bottom.
    """
    variables = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
    variables += [_variable(filter_) for filter_ in FILTERS]
    return {
        "uid": f"duet-{name}",
        "title": f"Duet: {title}",
        "tags": ["duet"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "links": [
            {"type": "link", "title": "Runbook", "url": f"{SITE}/how-to/runbook.html", "targetBlank": True},
            {"type": "dashboards", "title": "Dashboards", "tags": ["duet"], "asDropdown": True},
        ],
        "panels": _placed(panels),
    }


def _variable(name: str) -> dict[str, Any]:
    known = f"label_values(duet_ready, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": known, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",  # also where a Prometheus has no such label
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(panels, start=1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > COLUMNS:
            x, y = 0, y + found[-1]["gridPos"]["h"]
        place = {"x": x, "y": y, "w": panel.width, "h": height}
        found.append({"id": number, "gridPos": place, **_panel(panel)})
        x += panel.width
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    good, bad = ("red", "green") if panel.below else ("green", "red")
    steps = [{"color": good, "value": None}, *({"color": bad, "value": limit} for limit in sorted(panel.limits))]
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            **({"format": "table", "instant": True} if panel.kind == "table" else {"exemplar": panel.exemplars}),
        }
        for number, query in enumerate(panel.queries)
    ]
    lines = {"thresholdsStyle": {"mode": "line" if panel.limits else "off"}} if panel.kind == "timeseries" else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "custom": lines,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "links": [{"title": panel.alert, "url": runbook(panel.alert), "targetBlank": True}] if panel.alert else [],
    }
