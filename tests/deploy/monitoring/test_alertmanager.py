"""Alertmanager accepts its configuration and sends each alert where the table in the runbook says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.monitoring.promtool import program
from tests.deploy.monitoring.watching import alertmanager
from tests.docs.pages import DOCS, rows

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "deploy/monitoring/alertmanager.yaml"
RULES = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
TABLE = rows((DOCS / "how-to/runbook.md").read_text().split("\n## ", maxsplit=1)[0])


def amtool(*words: str) -> str:
    command = [program("amtool", "prometheus-alertmanager"), *words]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_configuration_is_accepted() -> None:
    assert "SUCCESS" in amtool("check-config", str(CONFIGURATION))


def test_every_alert_is_in_the_table_and_reaches_the_receiver_that_it_names() -> None:
    routed = set()
    for rule in ALERTS:
        labels = [f"{name}={value}" for name, value in {"alertname": rule["alert"], **rule["labels"]}.items()]
        receiver = amtool("config", "routes", "test", f"--config.file={CONFIGURATION}", *labels).strip()
        routed.add((f"[{rule['alert']}](#{rule['alert'].lower()})", rule["labels"]["severity"], receiver))
    assert {tuple(row[:3]) for row in TABLE} == routed


def test_every_alert_has_what_the_person_needs_who_gets_it() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["labels"]["category"] in ("service", "quality")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")


@pytest.mark.parametrize("rule", yaml.safe_load(CONFIGURATION.read_text())["inhibit_rules"], ids=str)
def test_inhibitions_name_alerts_that_exist(rule: dict[str, list[str]]) -> None:
    names = {alert["alert"] for alert in ALERTS}
    for matcher in rule["source_matchers"] + rule["target_matchers"]:
        label, pattern = re.fullmatch(r'(\w+)[=!~]+"([^"]+)"', matcher).groups()  # type: ignore[union-attr]
        if label == "alertname":
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, name) for name in names), part


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    with alertmanager(configuration, tmp_path_factory.mktemp("alertmanager")) as address:
        yield f"http://{address}/api/v2/alerts"


PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}
BURN = {"alertname": "DuetLatencyBudgetBurn", "sloth_slo": "latency-score"}
SERVICE = {"namespace": "prod", "job": "duet-anomaly"}


@pytest.mark.server
@pytest.mark.parametrize(
    ("cause", "consequence", "other"),
    [
        (BURN | PAGE, BURN | TICKET, BURN | TICKET | {"sloth_slo": "availability"}),
        (BURN | PAGE, {"alertname": "DuetQueueWait"} | TICKET, {"alertname": "DuetDrift"} | TICKET),
        (
            {"alertname": "DuetRedisBreakerOpen"} | TICKET,
            {"alertname": "DuetCacheErrors"} | TICKET,
            {"alertname": "DuetCacheErrors", "job": "duet-generation"} | TICKET,
        ),
        (
            {"alertname": "DuetServiceDown"} | PAGE,
            {"alertname": "DuetTargetDown", "instance": "a"} | TICKET,
            {"alertname": "DuetTargetDown", "job": "duet-generation"} | TICKET,
        ),
        (
            {"alertname": "DuetTargetDown", "instance": "a"} | TICKET,
            {"alertname": "DuetNotReady", "instance": "a"} | TICKET,
            {"alertname": "DuetNotReady", "instance": "b"} | TICKET,
        ),
        (
            {"alertname": "DuetAbsent", "job": ""} | PAGE,
            {"alertname": "DuetServiceDown"} | PAGE,
            {"alertname": "Another"},
        ),
    ],
    ids=lambda labels: labels["alertname"],
)
def test_a_consequence_is_not_told_while_its_cause_is(
    url: str, cause: dict[str, str], consequence: dict[str, str], other: dict[str, str], request: pytest.FixtureRequest
) -> None:
    of = SERVICE | {"namespace": request.node.callspec.id}  # each case has a namespace of its own
    alerts = [{"labels": of | labels} for labels in (cause, consequence, other)]
    if cause["alertname"] == "DuetAbsent":
        alerts[0]["labels"] = cause
    httpx.post(url, json=alerts, timeout=30).raise_for_status()
    states = [
        alert["status"]["state"]
        for sent in alerts
        for alert in httpx.get(url, timeout=30).json()
        if alert["labels"] == {name: value for name, value in sent["labels"].items() if value}
    ]
    ended = [sent | {"endsAt": "2020-01-01T00:00:00Z", "startsAt": "2019-12-31T00:00:00Z"} for sent in alerts]
    assert states == ["active", "suppressed", "active"]
    httpx.post(url, json=ended, timeout=30).raise_for_status()
