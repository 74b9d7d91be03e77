"""What push and pull refuse, each with one line, and that nothing half-written is left."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.inference import registry
from services.inference.bundle import SIGNATURE, Bundle
from tests.conftest import free_port
from tests.registries import content, duet_models, pushed, refusal, start_registry
from tests.services.conftest import Keys

MakeBundle = Callable[..., Bundle]

pytestmark = [pytest.mark.usefixtures("empty_store"), pytest.mark.server]

HTTP = httpx.Client(headers={"Connection": "close"})  # one for all: making one takes a tenth of a second


def test_a_bundle_that_does_not_verify_is_not_pushed(
    make_bundle: MakeBundle, repository: str, registry_address: str
) -> None:
    bundle = make_bundle()
    (bundle.path / "card.md").write_text("another")
    assert "card.md: SHA-256" in refusal(duet_models("push", f"{bundle.path}/", repository))
    name = repository.removeprefix(f"oci://{registry_address}/")
    assert HTTP.get(f"http://{registry_address}/v2/{name}/tags/list").status_code == 404


def test_a_bundle_with_the_signature_of_another_one_is_not_pushed(
    make_bundle: MakeBundle, repository: str, keys: Keys
) -> None:
    one, two = make_bundle("one"), make_bundle("two", weight=2)
    duet_models("sign", f"{one.path}/", "--key", keys("release")[0])
    shutil.copy(one.path / SIGNATURE, two.path)
    said = refusal(duet_models("push", f"{two.path}/", repository))
    assert f"signs tiny-linear:{one.version}" in said
    assert f"this bundle is tiny-linear:{two.version}" in said


def test_a_tag_that_moved_is_refused_with_both_digests(
    make_bundle: MakeBundle, repository: str, tmp_path: Path
) -> None:
    old, _, _ = pushed(f"{make_bundle('one').path}/", f"{repository}:stable")
    new, _, _ = pushed(f"{make_bundle('two', weight=2).path}/", f"{repository}:stable")
    wanted = f"{repository}:stable@{old.partition('@')[2]}"
    said = refusal(duet_models("pull", wanted, "--into", tmp_path / "mount"))
    assert old.partition("@")[2] in said
    assert f"the tag stable moved: it names {new.partition('@')[2]}" in said
    assert list((tmp_path / "mount").iterdir()) == []
    assert duet_models("pull", f"{repository}@{old.partition('@')[2]}").exit_code == 0, (
        "by the digest it is still there"
    )


def test_a_flipped_byte_in_the_registry_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with start_registry(tmp_path / "own") as address:
        bundle = make_bundle()
        reference, _, _ = pushed(f"{bundle.path}/", f"oci://{address}/models/tiny")
        graph = (bundle.path / "classify.onnx").read_bytes()
        [blob] = [path for path in (tmp_path / "own").rglob("data") if graph in path.read_bytes()]
        data = bytearray(blob.read_bytes())
        data[600] ^= 1
        blob.write_bytes(data)
        said = refusal(duet_models("pull", reference, "--into", tmp_path / "mount"))
        assert "the registry gives other bytes for the blob" in said
        assert list((tmp_path / "mount").iterdir()) == []
        assert registry.entries() == []

        blob.unlink()
        assert "the registry answers 404" in refusal(duet_models("pull", reference, "--into", tmp_path / "mount"))
        assert list((tmp_path / "mount").iterdir()) == []


def upload(address: str, repository: str, tag: str, layers: list[tuple[str, bytes]]) -> None:
    """Send an image without Duet's client."""
    base = f"http://{address}/v2/{repository}"

    def send(data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        location = HTTP.post(f"{base}/blobs/uploads/").headers["Location"]
        assert HTTP.put(f"{location}&digest={digest}", content=data).status_code == 201
        return {"digest": digest, "size": len(data)}

    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **send(b"{}")}
    described = [{"mediaType": kind, **send(data)} for kind, data in layers]
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": described}
    answer = HTTP.put(f"{base}/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": kind})
    assert answer.status_code == 201, answer.text


def archive(tmp_path: Path, members: dict[str, bytes | str]) -> bytes:
    """A tar.gz with files; a text is the target of a link."""
    with tarfile.open(tmp_path / "layer.tar.gz", "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return (tmp_path / "layer.tar.gz").read_bytes()


GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.mark.parametrize(
    ("kind", "members", "reason"),
    [
        (GZIP, {"etc/passwd": b"root"}, "holds no bundle that verifies: models/manifest.json: not found"),
        (GZIP, {"models/manifest.json": b"{}"}, "models/manifest.json: schema version None"),
        (GZIP, {"models/../../escaped": b"x"}, "a layer cannot be unpacked"),
        (GZIP, {"models/manifest.json": "/etc/passwd"}, "models/manifest.json is not a plain file"),
        (GZIP, {"models/.wh.manifest.json": b""}, "is not a plain file"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", {}, "tar+zstd, not an archive"),
        ("text/plain", {}, "a layer is text/plain, not an archive"),
    ],
    ids=["image", "manifest", "escape", "link", "whiteout", "zstd", "artifact"],
)
def test_what_is_no_bundle_is_refused(
    repository: str, registry_address: str, tmp_path: Path, kind: str, members: dict[str, bytes | str], reason: str
) -> None:
    name = repository.removeprefix(f"oci://{registry_address}/")
    upload(registry_address, name, "latest", [(kind, archive(tmp_path, members))])
    for target in ([], ["--into", tmp_path / "mount"]):
        said = refusal(duet_models("pull", repository, *target))
        assert said.startswith(f"{repository}:latest: ")
        assert reason in said
    assert list((tmp_path / "mount").iterdir()) == []
    assert registry.entries() == []
    assert not (tmp_path.parent / "escaped").exists()


def test_no_archive_and_an_added_file_are_refused(
    make_bundle: MakeBundle, repository: str, registry_address: str, tmp_path: Path
) -> None:
    name = repository.removeprefix(f"oci://{registry_address}/")
    upload(registry_address, name, "latest", [(GZIP, b"no archive")])
    assert "a layer cannot be unpacked" in refusal(duet_models("pull", repository))
    bundle = make_bundle()
    members: dict[str, bytes | str] = {f"models/{file}": data for file, data in content(bundle.path).items()}
    upload(registry_address, name, "good", [(GZIP, archive(tmp_path, members))])
    assert duet_models("pull", f"{repository}:good").exit_code == 0, "a gzip layer of another program is fine"
    upload(registry_address, name, "bad", [(GZIP, archive(tmp_path, {**members, "models/extra.py": b"x"}))])
    assert "models/extra.py: a file that the manifest does not list" in refusal(
        duet_models("pull", f"{repository}:bad")
    )


def test_a_registry_that_is_away_is_one_line(make_bundle: MakeBundle, tmp_path: Path) -> None:
    away = f"oci://127.0.0.1:{free_port()}/models/tiny"
    for result in (
        duet_models("push", f"{make_bundle().path}/", away),
        duet_models("pull", f"{away}:1", "--into", tmp_path / "mount"),
    ):
        assert "the registry does not answer (" in refusal(result)
    assert list((tmp_path / "mount").iterdir()) == []


def test_a_tag_that_is_not_there_is_one_line(repository: str) -> None:
    said = refusal(duet_models("pull", f"{repository}:missing"))
    assert "the registry answers 404 (MANIFEST_UNKNOWN" in said


@pytest.mark.parametrize(
    "reference",
    [
        "registry/models/tiny",
        "oci://registry",
        "oci://registry/Models",
        "oci://registry/a@sha256:12",
        "oci://r/a:-b",
        "oci://r/a b",
    ],
)
def test_what_is_no_reference_is_refused(reference: str, make_bundle: MakeBundle) -> None:
    assert "is not of the form oci://REGISTRY/REPOSITORY" in refusal(duet_models("pull", reference))
    assert "is not of the form" in refusal(duet_models("push", f"{make_bundle().path}/", reference))


def test_push_to_a_digest_is_refused(make_bundle: MakeBundle) -> None:
    said = refusal(duet_models("push", f"{make_bundle().path}/", f"oci://r/a@sha256:{'0' * 64}"))
    assert "the bundle decides the digest" in said
