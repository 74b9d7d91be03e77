"""The files for the forge: the workflow calls what the repository has, and a bug report asks for what is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.settings import Settings

ROOT = Path(__file__).parents[1]
FORGE = ROOT / ".github"


def read(name: str) -> dict[Any, Any]:
    content = yaml.safe_load((FORGE / name).read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return read("workflows/ci.yml")


def commands(workflow: dict[Any, Any], job: str) -> list[str]:
    return [step["run"] for step in workflow["jobs"][job]["steps"] if "run" in step]


def test_the_workflow_runs_the_check_and_at_night_the_long_tests(workflow: dict[Any, Any]) -> None:
    assert commands(workflow, "check")[-1] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert commands(workflow, "nightly")[-1] == "make nightly"
    assert re.search(r"^nightly:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    events = workflow[True]  # YAML 1.1 reads the key `on` as true
    assert {"push", "pull_request", "schedule"} <= set(events)
    [time] = events["schedule"]
    assert len(time["cron"].split()) == 5


def test_the_workflow_has_few_rights_and_an_end(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert 0 < job["timeout-minutes"] <= 360
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
        [python] = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert python == "3.11", "a string: YAML would read 3.10 as 3.1"


def test_a_bug_report_asks_for_version_manifest_and_request() -> None:
    fields = [field for field in read("ISSUE_TEMPLATE/bug.yml")["body"] if field["type"] != "markdown"]
    asked = {field["id"]: field["attributes"]["label"] + field["attributes"].get("description", "") for field in fields}
    assert len(asked) == len(fields)
    assert "`duet --version`" in asked["version"]
    assert "`duet models show NAME`" in asked["manifest"]
    assert "`X-Request-Id`" in asked["request"]
    required = {field["id"] for field in fields if field.get("validations", {}).get("required")}
    assert required == {"done", "expected", "came", "version"}
    assert all(field["type"] in ("input", "textarea", "dropdown", "checkboxes") for field in fields)
    assert "blank_issues_enabled" in read("ISSUE_TEMPLATE/config.yml")


def test_vulnerabilities_are_reported_in_private() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in text
    for setting in re.findall(r"`DUET_(\w+)`", text):
        assert setting.lower() in Settings.model_fields, setting
