"""Layers of the images: the same commit gives the same digest, and a new model is all that a registry receives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from services.inference.bundle import load
from tests.images.conftest import ROOT, Build, Built, run
from tests.images.relay import relay

pytestmark = [pytest.mark.nightly, pytest.mark.server]

MODEL, OTHER = "mnist-cnn", "mnist-bayes"
SHARE = 10  # a model change is at most a tenth of what it was
ELF_MACHINES = {"amd64": 62, "arm64": 183}


@pytest.fixture(scope="module")
def image(build: Build) -> Built:
    return build("first", MODEL)


@pytest.fixture(scope="module")
def other(build: Build) -> Built:
    return build("first", OTHER)


def test_two_builds_have_one_digest(image: Built, build: Build) -> None:
    again = build("second", MODEL)
    assert again.layers() == image.layers()
    assert again.index_digest == image.index_digest


def test_labels_name_the_commit_and_the_bundles(image: Built) -> None:
    labels = image.config()["config"]["Labels"]  # type: ignore[index]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}revision"] == run(image.environment, "git", "-C", ROOT, "rev-parse", "HEAD")
    assert labels[f"{prefix}title"] == "duet-classification"
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert labels[f"{prefix}version"]
    assert labels[f"{prefix}base.digest"].startswith("sha256:")
    assert labels[f"duet.bundle.{MODEL}"] == f"sha256:{load(ROOT / 'services/reference' / MODEL).digest}"


def test_materials_list_packages_and_bundles(image: Built) -> None:
    document: dict[str, Any] = json.loads(image.layout.with_name("duet-classification.amd64.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == image.index_digest
    found = {component["name"]: component["type"] for component in document["components"]}
    assert {"onnxruntime", "bentoml", "duet", "numpy"} <= found.keys()
    assert found[MODEL] == "machine-learning-model"
    assert "torch" not in found


def test_a_model_change_sends_the_model_alone(image: Built, other: Built, registry: str, tmp_path: Path) -> None:
    assert image.layers()[:-1] == other.layers()[:-1]
    assert image.layers()[-1] != other.layers()[-1]
    sent = {}
    with relay(registry) as counting:
        for name, built in (("before", image), ("after", other)):
            counting.received = 0
            push(built.environment, f"oci:{built.layout}", f"{counting.address}/layered:{name}")
            sent[name] = counting.received
        # As one layer, which every image was before.
        for name, built in (("before", image), ("after", other)):
            counting.received = 0
            push(built.environment, one_layer(built, tmp_path / name), f"{counting.address}/whole:{name}")
            sent[f"{name}, one layer"] = counting.received
    print({name: f"{count:,} bytes" for name, count in sent.items()})
    assert sent["after"] * SHARE <= sent["after, one layer"]


def push(environment: dict[str, str], source: str, target: str) -> None:
    run(environment, "skopeo", "copy", "--all", "--dest-tls-verify=false", source, f"docker://{target}")


def one_layer(built: Built, scratch: Path) -> str:
    """What lies above the base, as one layer; the base is sent once, whatever lies above it."""
    content = scratch / "content"
    for layer in built.layers()[1:]:
        content.mkdir(parents=True, exist_ok=True)
        run(built.environment, "tar", "-xf", built.layout / "blobs" / layer.replace(":", "/"), "-C", content)
    made = run(built.environment, "buildah", "from", "scratch")
    run(built.environment, "buildah", "add", made, content, "/")
    run(built.environment, "buildah", "commit", "--rm", made, f"oci:{scratch / 'whole'}")
    shutil.rmtree(content)
    return f"oci:{scratch / 'whole'}"


def test_an_image_for_arm64_is_made_of_its_own_base_and_wheels(build: Build, tmp_path: Path) -> None:
    """It is built without emulation; that it runs, no test here shows."""
    built = build("first", MODEL, "--platforms", "linux/amd64,linux/arm64")
    for architecture, machine in ELF_MACHINES.items():
        tree = tmp_path / architecture
        tree.mkdir()
        for layer in built.layers(architecture)[:2]:
            run(built.environment, "tar", "-xf", built.layout / "blobs" / layer.replace(":", "/"), "-C", tree)
        assert built.config(architecture)["architecture"] == architecture
        libraries = [tree / "usr/bin/python3.11", *(tree / "app/lib").rglob("*.so")]
        assert len(libraries) > 20
        assert {int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries} == {machine}
    assert built.layers("amd64")[-1] == built.layers("arm64")[-1], "models are the same for all"
