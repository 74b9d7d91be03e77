"""Dashboards and rules name metrics and labels that exist; panels have units, filters and stable places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from deploy.monitoring.__main__ import written
from deploy.monitoring.objectives import read
from services.telemetry import counter, histogram, metrics
from tests.docs.pages import DOCS

TEXTS = written()
BOARDS = {path.stem: json.loads(text) for path, text in TEXTS.items() if path.suffix == ".json"}
RULES = next(yaml.safe_load(text) for path, text in TEXTS.items() if path.name == "rules.yaml")
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"]]
TARGET = {"namespace", "job", "instance", "pod"}  # Prometheus adds them to all that it reads
OUTSIDE = {  # of the Prometheus client and of the exporter of Redis
    "up",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
    "redis_memory_used_bytes",
    "redis_memory_max_bytes",
    "redis_evicted_keys_total",
    "redis_db_keys",
    "redis_connected_clients",
    "redis_commands_processed_total",
}


def known() -> dict[str, set[str]]:
    """The labels of every series that there is, by its name."""
    found = {name: set() for name in OUTSIDE}
    for value in vars(metrics).values():
        if isinstance(value, histogram.Histogram):
            labels = set(value._labels)
            found |= {f"{value._about[0]}_{part}": labels for part in ("count", "sum")}
            found[f"{value._about[0]}_bucket"] = labels | {"le"}
        elif isinstance(value, counter.Counter):
            found[value._about[0]] = set(value._labels)
        elif isinstance(value, metrics.Gauge):
            found[value._name] = set(value._labelnames)
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                found.setdefault(rule["record"], set()).update(labels_of(rule["expr"], found), rule.get("labels", {}))
    return found


def parse(query: str) -> Any:
    text = query.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$job", ".*")
    return promql_parser.parse(text)


def inside(node: Any) -> Iterator[Any]:
    """A node and all those below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        child = getattr(node, name, None)
        if isinstance(child, promql_parser.Expr):
            yield from inside(child)
    for argument in getattr(node, "args", None) or []:
        yield from inside(argument)


def labels_of(query: str, found: dict[str, set[str]]) -> set[str]:
    """The labels of what a query names and groups by, as far as they are known; each name has to be."""
    named = set()
    for node in inside(parse(query)):
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name in found, f"{node.name} is no metric and not recorded: {query}"
            named |= found[node.name]
            used = {matcher.name for matcher in node.matchers.matchers}
            assert used <= found[node.name] | TARGET, f"{node.name} has no label {used - found[node.name] - TARGET}"
    return named


def check(query: str, found: dict[str, set[str]]) -> None:
    """Every metric and every label that a query names exists."""
    named = labels_of(query, found)
    for node in inside(parse(query)):
        for modifier in (getattr(node, "modifier", None),):
            if modifier is None:
                continue
            grouped = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None)
            assert set(grouped or ()) <= named | TARGET, (
                f"{set(grouped or ()) - named - TARGET}: no such label: {query}"
            )


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    return known()


@pytest.mark.parametrize(
    ("board", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_queries_of_panels_name_what_exists(board: str, panel: dict[str, Any], found: dict[str, set[str]]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        check(target["expr"], found)
        assert "[5m]" not in target["expr"], "use $__rate_interval"
        assert '"$namespace"' in target["expr"]


def test_rules_name_what_exists(found: dict[str, set[str]]) -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            check(rule["expr"], found)


@pytest.mark.parametrize(
    "query",
    [
        "duet_ready_now",
        'rate(duet_rejections_total{code="429"}[5m])',
        "sum by (modle) (duet_queue_items)",
        "duet_model_info * on (pods) group_left () duet_ready",
        "absent(duet_redy)",
    ],
)
def test_an_unknown_metric_or_label_is_noticed(query: str, found: dict[str, set[str]]) -> None:
    with pytest.raises(AssertionError):
        check(query, found)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_found_again_and_reads_any_prometheus(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"duet-{name}"
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "job"]
    numbers = [panel["id"] for panel in board["panels"]]
    assert numbers == list(range(1, len(numbers) + 1))
    sources = [panel["datasource"] for panel in board["panels"]]
    sources += [target["datasource"] for panel in board["panels"] for target in panel["targets"]]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in board["panels"])


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    cells = [
        (x, y)
        for panel in BOARDS[name]["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_objectives_are_drawn_in() -> None:
    drawn = [
        step["value"]
        for panel in BOARDS["service"]["panels"]
        if panel["type"] == "timeseries"
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    ]
    for objective in read():
        assert objective.budget in drawn
        assert objective.seconds is None or objective.seconds in drawn


def test_links_lead_into_the_runbook() -> None:
    headings = {line.removeprefix("### ").lower() for line in (DOCS / "how-to/runbook.md").read_text().splitlines()}
    links = [link["url"] for _, panel in PANELS for link in panel["links"]]
    links += [
        rule["annotations"]["runbook_url"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert links
    for link in links:
        page, _, anchor = link.partition("#")
        assert Path(page).name == "runbook.html"
        assert anchor in headings
