"""A drill's rules are the committed ones, but for the unit of time."""

from __future__ import annotations

import re

import yaml

from tests.deploy.monitoring import scaled
from tests.deploy.monitoring.watching import ROOT

RULES = yaml.safe_load((ROOT / "deploy/monitoring/rules.yaml").read_text())
CONFIGURATION = yaml.safe_load((ROOT / "deploy/monitoring/alertmanager.yaml").read_text())


def test_every_length_of_a_rule_is_divided() -> None:
    found = scaled.rules(RULES, 60)
    pairs = [
        (before, after)
        for old, new in zip(RULES["groups"], found["groups"], strict=True)
        for before, after in zip(old["rules"], new["rules"], strict=True)
    ]
    for before, after in pairs:
        assert not re.search(r"(?:\[|offset )\d+(?!ms)[smhd]", after["expr"]), after
        assert ("for" in before) == ("for" in after)
        assert {**before, "expr": "", "for": ""} == {**after, "expr": "", "for": ""}
    by_name = {after["alert"]: after for _, after in pairs if "alert" in after}
    assert by_name["DuetQueueWait"]["for"] == "10000ms"
    assert "[5000ms]" in by_name["DuetQueueWait"]["expr"]
    assert "offset 60000ms" in by_name["DuetCacheHitRatioDrop"]["expr"]
    assert "duet:cache_lookups:rate1h * 60 >= 1000" in by_name["DuetCacheHitRatioDrop"]["expr"]


def test_a_factor_of_one_changes_nothing_but_the_unit() -> None:
    found = scaled.rules(RULES, 1)["groups"][0]["rules"][-1]["expr"]
    assert re.findall(r"\* (\d+) >=", found) == re.findall(r"\* (\d+) >=", RULES["groups"][0]["rules"][-1]["expr"])


def test_the_routes_wait_less_and_lead_to_the_webhook() -> None:
    found = scaled.alertmanager(CONFIGURATION, 60, "http://127.0.0.1:1")
    assert found["route"]["group_wait"] == "500ms"
    assert found["route"]["routes"][0]["repeat_interval"] == "60000ms"
    assert [one["webhook_configs"][0]["url"] for one in found["receivers"]] == [
        f"http://127.0.0.1:1/{one['name']}" for one in CONFIGURATION["receivers"]
    ]
    assert found["inhibit_rules"] == CONFIGURATION["inhibit_rules"]
