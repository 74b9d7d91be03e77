"""From a signed bundle to a ready service by way of a real registry, and what a service says of tampered ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.inference.bundle import MANIFEST, SIGNATURE, Manifest, load, seal
from tests.registries import duet_models, key_pair, start_registry

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture
def source(model_store: Path, tmp_path: Path) -> Path:
    """A copy of the demo's classifier, without BentoML's record."""
    [found] = [path.parent for path in model_store.glob(f"models/digits-cnn/*/{MANIFEST}")]
    copied = Path(shutil.copytree(found, tmp_path / "source"))
    (copied / "model.yaml").unlink()
    return copied


def reasons(server: Any) -> str:
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 503
    return answer.text


def wait_until_loaded(server: Any) -> None:
    while "starting" in (answer := httpx.get(f"{server.url}/readyz")).text and answer.status_code == 503:
        pass


def test_a_signed_bundle_goes_through_a_registry_and_is_served(source: Path, serve: Any, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "release")
    (tmp_path / "registry").mkdir()
    with start_registry(tmp_path / "registry") as address:
        assert duet_models("sign", f"{source}/", "--key", private).exit_code == 0
        pushed = duet_models("push", f"{source}/", f"oci://{address}/models/digits-cnn")
        reference = pushed.stdout.splitlines()[-1]
        assert duet_models("pull", reference, "--into", tmp_path / "mount").exit_code == 0
    settings = {"DUET_BUNDLES": str(tmp_path / "mount"), "DUET_TRUSTED_KEYS": str(public)}
    with serve("classification", home=tmp_path / "home", **settings) as server:
        [model] = httpx.get(f"{server.url}/models").json()["models"]
        assert model["digest"] == load(source).digest
    assert f"is signed by the key {public}" in server.log.read_text()
    assert not list((tmp_path / "home").glob("models/*")), "the store stays empty"


def test_every_kind_of_tampering_is_named_and_the_untouched_bundle_is_served(
    source: Path, serve: Any, tmp_path: Path
) -> None:
    """One service with all of them: seven models that are not ready, each with its reason, and one that answers."""
    (trusted, public), (foreign, _) = key_pair(tmp_path, "release"), key_pair(tmp_path, "foreign")
    mount = tmp_path / "mount"

    def put(name: str, key: Path | None = trusted) -> Path:
        """A bundle of that name, signed."""
        path = Path(shutil.copytree(source, mount / name))
        seal(path, Manifest.model_validate_json((path / MANIFEST).read_text()).model_copy(update={"name": name}))
        if key:
            assert duet_models("sign", f"{path}/", "--key", key).exit_code == 0
        return path

    put("good")
    graph = put("flipped") / "classify.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    (put("missing") / "card.md").unlink()
    (put("added") / "extra.onnx").write_bytes(b"x")
    put("unsigned", None)
    put("foreign", foreign)
    other = put("other")
    shutil.copy(mount / "good" / SIGNATURE, other / SIGNATURE)
    resealed = put("resealed")
    (resealed / "card.md").write_text("another card")
    seal(resealed, Manifest.model_validate_json((resealed / MANIFEST).read_text()))

    settings = {"DUET_BUNDLES": str(mount), "DUET_TRUSTED_KEYS": str(public), "DUET_DEFAULT_MODELS": ""}
    with serve("classification", home=tmp_path / "home", ready=False, **settings) as server:
        wait_until_loaded(server)
        said = reasons(server)
        versions = {
            name: json.loads((mount / name / MANIFEST).read_text())["digest"][:12] for name in ("good", "other")
        }
        for reason in (
            "flipped/classify.onnx: SHA-256 ",
            "missing/card.md: No such file or directory",
            "added/extra.onnx: a file that the manifest does not list",
            "unsigned/model.sig: not found, and only bundles that are signed are trusted",
            f"foreign/model.sig: none of the trusted keys made it ({public})",
            f"other/model.sig: signs good:{versions['good']} with the digest ",
            f"but this bundle is other:{versions['other']} with the digest ",
            "resealed/model.sig: signs resealed:",
        ):
            assert reason in said, reason
        index = httpx.post(f"{server.url}/v2/repository/index").json()
        assert [model["name"] for model in index if model["state"] == "READY"] == ["good"]
        assert len(index) == 8
        assert httpx.get(f"{server.url}/v2/models/good/ready").status_code == 200
        assert httpx.get(f"{server.url}/v2/models/foreign/ready").status_code == 503


def test_a_tag_that_moved_is_not_ready_where_the_version_is_pinned(source: Path, serve: Any, tmp_path: Path) -> None:
    pinned = load(source).version
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    (moved / "card.md").write_text("another card")
    bundle = seal(moved, load(source).manifest)
    (tmp_path / "registry").mkdir()
    with start_registry(tmp_path / "registry") as address:
        reference = f"oci://{address}/models/digits-cnn:stable"
        assert duet_models("push", f"{source}/", reference).exit_code == 0
        assert duet_models("push", f"{moved}/", reference).exit_code == 0
        assert duet_models("pull", reference, "--into", tmp_path / "mount").exit_code == 0
    settings = {"DUET_BUNDLES": str(tmp_path / "mount"), "DUET_MODELS": f"digits-cnn:{pinned}"}
    with serve("classification", home=tmp_path / "home", ready=False, **settings) as server:
        wait_until_loaded(server)
        assert f"'digits-cnn:{pinned}' is not in DUET_BUNDLES" in reasons(server)
        assert f"it holds digits-cnn:{bundle.version}" in reasons(server)
