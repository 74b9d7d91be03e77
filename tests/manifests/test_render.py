"""`make render`: objects of a right overlay, and the file and the field of a wrong one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests import sites
from tests.manifests.sites import ROOT, objects, site, write


def run(overlay: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.manifests", str(overlay)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUET_")} | environment
    return subprocess.run(command, cwd=ROOT, env=kept, check=False, capture_output=True, text=True)


def refused(folder: Path, written: dict[str, Any]) -> list[str]:
    """The lines of a refusal."""
    objects("base")  # skips where there is no kubectl
    write(folder, written)
    answer = run(folder)
    assert answer.returncode == 1
    assert answer.stdout == ""
    return answer.stderr.splitlines()


def test_a_right_overlay_is_printed(tmp_path: Path) -> None:
    right = objects("overlays/laptop")
    write(tmp_path, site("overlays/laptop", ()))
    answer = run(tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert list(yaml.safe_load_all(answer.stdout)) == right


def test_a_tag_is_refused_with_file_and_field(tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    (number,) = (at for at, image in enumerate(written["images"]) if image["name"] == "duet-anomaly")
    written["images"][number] = {"name": "duet-anomaly", "newName": "registry.example.com/a", "newTag": "0.1.0"}
    (line,) = refused(tmp_path, written)
    assert line.startswith(f"images: {tmp_path}/kustomization.yaml: images[{number}].newTag: '0.1.0' of duet-anomaly")
    assert "`digest: sha256:...`" in line


def test_an_image_without_an_entry_is_refused_with_what_to_add(tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    written["images"] = [image for image in written["images"] if image["name"] != "duet-anomaly"]
    (line,) = refused(tmp_path, written)
    assert line.startswith(f"images: {tmp_path}/kustomization.yaml: images: duet-anomaly has no digest; add ")


def test_a_bundle_without_a_digest_is_refused(tmp_path: Path) -> None:
    written = site("base", ("models-init-container",))
    written["patches"] = []
    lines = refused(tmp_path, written)
    assert len(lines) == 3
    assert all(f"{tmp_path}/kustomization.yaml: patches: the bundle oci://" in line for line in lines)


def test_keys_that_are_demanded_and_missing_are_refused(tmp_path: Path) -> None:
    written = site("overlays/production", ())
    del written["configMapGenerator"]
    lines = refused(tmp_path, written)
    assert [line for line in lines if line.startswith(f"keys: {tmp_path}/kustomization.yaml: configMapGenerator: ")]


def test_a_setting_that_needs_more_memory_is_refused_with_the_sum(tmp_path: Path) -> None:
    written = site("overlays/laptop", ())
    literals = ["DUET_BODIES_BYTES=1073741824"]
    written["configMapGenerator"] = [{"name": "duet-settings", "behavior": "merge", "literals": literals}]
    lines = refused(tmp_path, written)
    assert len(lines) == 3
    for line in lines:
        assert "resources.limits.memory: " in line
        assert "bodies 1024" in line


def test_a_folder_without_a_kustomization_is_refused(tmp_path: Path) -> None:
    answer = run(tmp_path / "none")
    assert answer.returncode == 1
    assert answer.stderr == f"{tmp_path}/none: there is no kustomization.yaml; name the folder of an overlay\n"


def test_what_kubectl_refuses_is_quoted(tmp_path: Path) -> None:
    lines = refused(tmp_path, sites.site("overlays/laptop", ()) | {"resources": ["deploy/kubernetes/nothing"]})
    assert lines[0].startswith(f"{tmp_path}: ")


def test_without_kubectl_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, site("overlays/laptop", ()))
    answer = run(tmp_path, PATH="")
    assert answer.returncode == 1
    assert answer.stderr.startswith("kubectl is not installed")


@pytest.mark.parametrize("target", sites.TARGETS)
def test_overlays_that_have_no_digests_are_refused(target: str) -> None:
    objects("base")
    answer = run(ROOT / "deploy/kubernetes" / target)
    assert answer.returncode == 1
    assert f"{target}/kustomization.yaml: images: duet" in answer.stderr
