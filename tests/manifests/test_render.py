"""`make render`: objects of a right overlay, and the file and the field of a wrong one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests.__main__ import main
from tests.manifests.sites import ROOT, TARGETS, objects, site, write

Run = Callable[[Path], tuple[int, str, str]]
Refuse = Callable[[dict[str, Any]], list[str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Status, what is printed, and what is wrong."""

    def call(overlay: Path) -> tuple[int, str, str]:
        status = main([str(overlay)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Refuse:
    """The lines of a refusal."""

    def call(written: dict[str, Any]) -> list[str]:
        objects("base")  # skips where there is no kubectl
        write(tmp_path, written)
        status, printed, wrong = run(tmp_path)
        assert (status, printed) == (1, "")
        return wrong.splitlines()

    return call


def test_make_render_prints_a_right_overlay(tmp_path: Path) -> None:
    right = objects("overlays/laptop")
    write(tmp_path, site("overlays/laptop", ()))
    command = [sys.executable, "-m", "deploy.manifests", str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert list(yaml.safe_load_all(answer.stdout)) == right
    assert "@$(BIN)/python -m deploy.manifests $(OVERLAY)" in (ROOT / "Makefile").read_text()


def test_a_tag_is_refused_with_file_and_field(refused: Refuse, tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    (number,) = (at for at, image in enumerate(written["images"]) if image["name"] == "duet-anomaly")
    written["images"][number] = {"name": "duet-anomaly", "newName": "registry.example.com/a", "newTag": "0.1.0"}
    (line,) = refused(written)
    assert line.startswith(f"images: {tmp_path}/kustomization.yaml: images[{number}].newTag: '0.1.0' of duet-anomaly")
    assert "`digest: sha256:...`" in line


def test_an_image_without_an_entry_is_refused_with_what_to_add(refused: Refuse, tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    written["images"] = [image for image in written["images"] if image["name"] != "duet-anomaly"]
    (line,) = refused(written)
    assert line.startswith(f"images: {tmp_path}/kustomization.yaml: images: duet-anomaly has no digest; add ")


def test_a_bundle_without_a_digest_is_refused(refused: Refuse, tmp_path: Path) -> None:
    written = site("base", ("models-init-container",))
    written["patches"] = []
    lines = refused(written)
    assert len(lines) == 3
    assert all(f"{tmp_path}/kustomization.yaml: patches: the bundle oci://" in line for line in lines)


def test_keys_that_are_demanded_and_missing_are_refused(refused: Refuse, tmp_path: Path) -> None:
    written = site("overlays/production", ())
    del written["configMapGenerator"]
    lines = refused(written)
    assert [line for line in lines if line.startswith(f"keys: {tmp_path}/kustomization.yaml: configMapGenerator: ")]


def test_a_setting_that_needs_more_memory_is_refused_with_the_sum(refused: Refuse, tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    literals = ["DUET_BODIES_BYTES=1073741824"]
    written["configMapGenerator"] = [{"name": "duet-settings", "behavior": "merge", "literals": literals}]
    lines = refused(written)
    assert len(lines) == 3
    for line in lines:
        assert "resources.limits.memory: " in line
        assert "(idle 220, compute 129, bodies 1106, " in line


def test_a_folder_without_a_kustomization_is_refused(run: Run, tmp_path: Path) -> None:
    said = f"{tmp_path}/none: there is no kustomization.yaml; name the folder of an overlay\n"
    assert run(tmp_path / "none") == (1, "", said)


def test_what_kubectl_refuses_is_quoted(refused: Refuse, tmp_path: Path) -> None:
    lines = refused(site("overlays/laptop", ()) | {"resources": ["deploy/kubernetes/nothing"]})
    assert lines[0].startswith(f"{tmp_path}: ")


def test_without_kubectl_it_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, site("overlays/laptop", ()))
    monkeypatch.setenv("PATH", "")
    status, printed, wrong = run(tmp_path)
    assert (status, printed) == (1, "")
    assert wrong.startswith("kubectl is not installed")


@pytest.mark.parametrize("target", TARGETS)
def test_overlays_that_have_no_digests_are_refused(run: Run, target: str) -> None:
    objects("base")
    status, printed, wrong = run(ROOT / "deploy/kubernetes" / target)
    assert (status, printed) == (1, "")
    assert f"{target}/kustomization.yaml: images: duet" in wrong
