"""The overlay that the guide shows renders, and nothing is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests.checks import problems
from deploy.manifests.objects import images, of_kind
from deploy.manifests.render import render
from tests.docs.pages import DOCS, fences, rows, section
from tests.manifests.sites import COMPONENTS, EXCLUSIVE, KEY, ROOT, TARGETS, objects, site, write

PAGE = (DOCS / "how-to/deploy.md").read_text()
SHOWN = {
    fence.body.partition("\n")[0].removeprefix("# "): fence.body for fence in fences(PAGE) if fence.language == "yaml"
}


def shown(file: str) -> Any:
    return yaml.safe_load(SHOWN[file].replace("sha256:DIGEST", f"sha256:{'0' * 64}"))


def test_the_sites_overlay_is_right(tmp_path: Path) -> None:
    objects("base")  # skips where there is no kubectl
    written = shown("site/kustomization.yaml")
    resources = [os.path.normpath(Path("site", path)) for path in written["resources"]]
    (tmp_path / "release.pem").write_text(KEY)
    (tmp_path / "redis.env").write_text("password=a1b2c3\n")
    write(tmp_path, written | {"resources": resources})
    found = list(yaml.safe_load_all(render(tmp_path)))
    assert problems(found) == {}
    assert {route["spec"]["hostnames"][0].partition(".")[2] for route in of_kind(found, "HTTPRoute").values()} == {
        "HOST"
    }


def test_the_patch_for_a_bundle_is_right(tmp_path: Path) -> None:
    written = site("base", ("models-image-volume",))
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(shown("site/models.yaml")))
    write(tmp_path, written | {"patches": [*written["patches"], {"path": "models.yaml"}]})
    objects("base")
    found = list(yaml.safe_load_all(render(tmp_path)))
    assert problems(found) == {}
    assert f"REGISTRY/mnist-cnn@sha256:{'0' * 64}" in [image for _, image in images(found)]


def test_the_guide_lists_every_overlay_and_component() -> None:
    overlays = [row[0].strip("`") for row in rows(section(PAGE, "Choose an overlay"))]
    assert {f"overlays/{name}" for name in overlays} == set(TARGETS) - {"base"}
    table = {row[0].strip("`"): row[-1] for row in rows(section(PAGE, "Choose components"))}
    assert set(table) == set(COMPONENTS)
    for group in EXCLUSIVE:
        for name in group:
            others = sorted(group - {name})
            assert table[name].strip("` |") in ([others[0]] if len(others) == 1 else ["the other two"])
    alone = set(COMPONENTS) - set().union(*EXCLUSIVE)
    assert {table[name].strip(" |") for name in alone} == {""}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_says_what_it_is_for(name: str) -> None:
    assert (ROOT / "deploy/kubernetes/components" / name / "kustomization.yaml").read_text().startswith("# ")
