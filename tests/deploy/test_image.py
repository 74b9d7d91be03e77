"""`make images`: what it refuses before it builds, and what stands beside the images. tests/images builds them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DIGEST = "registry.example/python@sha256:" + "0" * 64
CRDS = Path(os.environ.get("DUET_DATA_DIR", "nowhere")) / "crds"
POLICY = ROOT / "deploy/kubernetes/policies/signed-images.yaml"
CONTAINERFILE = ROOT / "deploy/Containerfile"


def image(*arguments: str, path: str | None = None) -> str:
    """The one line with which it refuses."""
    environment = os.environ | ({} if path is None else {"PATH": path})
    command = [sys.executable, "-m", "deploy.image", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    (line,) = run.stderr.splitlines()
    return line


@pytest.mark.parametrize("base", ["python:3.11-slim", "python", "", "python@sha256:123"])
def test_a_base_without_a_digest_is_refused(base: str) -> None:
    assert image(base).startswith(
        f"BASE: {base!r} has no digest, so it could be another image tomorrow; give NAME@sha256:"
    )


def test_an_unknown_platform_or_image_is_refused() -> None:
    assert "--platforms: 'linux/riscv64' is not one of" in image(DIGEST, "--platforms", "linux/riscv64")
    assert "IMAGE: 'duet-translation' is not one of duet, " in image(DIGEST, "duet-translation")


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    assert "sudo apt-get install buildah" in image(DIGEST, path=str(tmp_path))


@pytest.mark.parametrize("program", ["pip", "gcc", "apt-get"])
def test_a_base_with_a_compiler_or_a_package_manager_is_refused(tmp_path: Path, program: str) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "deploy/check_base.py"]
        return subprocess.run(command, env={"PATH": str(tmp_path)}, check=False, capture_output=True, text=True)

    here = sys.version_info[:2] == (3, 11)
    assert check().returncode == (0 if here else 1)
    (tmp_path / program).write_text("")
    (tmp_path / program).chmod(0o755)
    refused = check()
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"BASE holds {program}; " if here else "BASE has Python ")


def test_the_images_have_every_service_and_share_the_layers_of_one() -> None:
    text = CONTAINERFILE.read_text()
    for task in ("generation", "classification", "anomaly"):
        stage = re.search(rf"^FROM duet AS {task}\nCMD (\[.+\])\nCOPY models/{task} /models$", text, re.MULTILINE)
        assert stage, task
        assert json.loads(stage[1])[0] == task
    assert text.count("\nCOPY --from=") == 2, "dependencies, then code"
    assert not re.search(r"^ARG BASE=", text, re.MULTILINE), "a base is chosen, by digest"


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([hadolint, CONTAINERFILE], check=False, capture_output=True, text=True).stdout == ""


def test_the_policy_demands_signatures_and_is_valid() -> None:
    policy = yaml.safe_load(POLICY.read_text())
    spec = policy["spec"]
    assert spec["validationActions"] == ["Deny"]
    assert spec["failurePolicy"] == "Fail"
    assert spec["validationConfigurations"] == {"mutateDigest": False, "verifyDigest": True, "required": True}
    expressions = " ".join(check["expression"] for check in spec["validations"])
    assert {name for name in ("verifyImageSignatures", "verifyAttestationSignatures") if name in expressions}
    for attestor in spec["attestors"]:
        assert f"attestors.{attestor['name']}" in expressions
    if not CRDS.is_dir():
        pytest.skip("DUET_DATA_DIR names no folder with crds, the schemas of custom resources")
    schema = CRDS / "imagevalidatingpolicy_v1.json"
    jsonschema.validate(policy, json.loads(schema.read_text()))
