"""Push to a real registry and pull from it: the bundle, the digest, what is sent twice, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.delivery.distribution import INDEX
from services.delivery.distribution import MANIFEST as MANIFEST_TYPE
from services.inference import folder, registry
from services.inference.bundle import MANIFEST, SIGNATURE, Bundle, load, seal
from tests.conftest import PATIENCE, ROOT, free_port
from tests.registries import duet_models, refusal, start_registry
from tests.services.conftest import Keys

MakeBundle = Callable[..., Bundle]

pytestmark = [pytest.mark.usefixtures("empty_store"), pytest.mark.server]

HTTP = httpx.Client(headers={"Connection": "close"})  # one for all: making one takes a tenth of a second


def pushed(*arguments: str | Path) -> tuple[str, int, int]:
    """Push; gives the reference by digest, the bytes that were sent and those that were there."""
    result = duet_models("push", *arguments)
    assert result.exit_code == 0, result.output
    _, counts, reference = result.stdout.splitlines()
    found = re.fullmatch(r"sent ([\d,]+) bytes; the registry had ([\d,]+)", counts)
    assert found
    return reference, *(int(number.replace(",", "")) for number in found.groups())  # type: ignore[return-value]


def document(reference: str, name: str = "") -> tuple[Any, httpx.Response]:
    """What the registry has under a digest or a tag, asked for without Duet's client."""
    found = re.fullmatch(r"oci://([^/]+)/([^@:]+)[@:](.+)", reference)
    assert found
    address, repository, last = found.groups()
    answer = HTTP.get(
        f"http://{address}/v2/{repository}/manifests/{name or last}", headers={"Accept": f"{INDEX}, {MANIFEST_TYPE}"}
    )
    answer.raise_for_status()
    return answer.json(), answer


def content(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_bundle_comes_back_into_the_store_and_into_a_folder(
    make_bundle: MakeBundle, repository: str, tmp_path: Path
) -> None:
    bundle = make_bundle()
    (bundle.path / "pictures").mkdir()
    (bundle.path / "pictures" / "a.txt").write_text("a" * 100_000)
    bundle = seal(bundle.path, bundle.manifest)
    reference, _, _ = pushed(registry.store(bundle).tag, repository)
    registry.delete(bundle.name)

    result = duet_models("pull", reference)
    assert result.stdout.splitlines() == [
        f"pulled {bundle.name}:{bundle.version} from {reference}",
        registry.find(bundle.name).tag,
    ]
    assert load(registry.find(bundle.name).path).manifest == bundle.manifest

    into = tmp_path / "mount"
    for _ in range(2):  # again changes nothing
        result = duet_models("pull", f"{repository}:{bundle.version}", "--into", into)
        assert result.stdout.splitlines()[1] == str(into / bundle.name / bundle.version)
        assert content(into / bundle.name / bundle.version) == content(bundle.path)
    assert [path.name for path in into.iterdir()] == [bundle.name], "no temporary folder is left"
    assert [entry.tag for entry in folder.entries(into)] == [f"{bundle.name}:{bundle.version}"]


def test_the_same_bundle_is_the_same_image_and_unchanged_files_are_not_sent_again(
    make_bundle: MakeBundle, repository: str, tmp_path: Path
) -> None:
    first = make_bundle("one")
    reference, sent, kept = pushed(f"{first.path}/", repository)
    assert sent > sum(file.bytes for file in first.manifest.files.values())
    assert kept == 0

    shutil.copytree(first.path, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    for file in (tmp_path / "copy").iterdir():
        os.utime(file, (1, 1))
    again, resent, there = pushed(f"{tmp_path}/copy", f"{repository}:other-tag")
    assert again == reference
    assert there > sum(file.bytes for file in first.manifest.files.values())
    assert resent < 5_000, "manifests and the index alone"

    changed = make_bundle("two", weight=2)
    _, sent, _ = pushed(f"{changed.path}/", repository)
    graph, card = ((changed.path / name).stat().st_size for name in ("classify.onnx", "card.md"))
    assert graph < sent
    index, _ = document(reference)
    manifest, _ = document(reference, index["manifests"][0]["digest"])
    other, _ = document(f"{repository}:{changed.version}")
    manifest_of_other, _ = document(reference, other["manifests"][0]["digest"])
    common = {layer["digest"] for layer in manifest["layers"]} & {
        layer["digest"] for layer in manifest_of_other["layers"]
    }
    assert len(common) == 1, f"card.md, of {card} bytes, is the only file that did not change"


def test_the_image_is_one_that_every_runtime_can_mount(make_bundle: MakeBundle, repository: str) -> None:
    """An index for two architectures with the same tar layers, whose sums the configurations name, and annotations."""
    bundle = make_bundle()
    reference, _, _ = pushed(f"{bundle.path}/", repository)
    index, answer = document(reference)
    assert f"@sha256:{hashlib.sha256(answer.content).hexdigest()}" in reference
    assert answer.headers["Content-Type"] == index["mediaType"] == INDEX
    assert [one["platform"] for one in index["manifests"]] == [
        {"architecture": architecture, "os": "linux"} for architecture in ("amd64", "arm64")
    ]
    about = {
        "org.opencontainers.image.title": bundle.name,
        "org.opencontainers.image.version": bundle.version,
        "duet.task": "classification",
        "duet.digest": bundle.digest,
    }
    assert index["annotations"] == about
    for one in index["manifests"]:
        manifest, _ = document(reference, one["digest"])
        config = HTTP.get(
            re.sub(r"oci://([^/]+)/(.+)@.*", r"http://\1/v2/\2/blobs/", reference) + manifest["config"]["digest"]
        ).json()
        assert manifest["annotations"] == config["config"]["Labels"] == about
        assert config["architecture"] == one["platform"]["architecture"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


@pytest.mark.slow
def test_another_programs_image_of_it_has_the_files_below_models(
    make_bundle: MakeBundle, repository: str, tmp_path: Path
) -> None:
    """Podman and buildah unpack images as the runtimes of a cluster do."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed (Debian: apt-get install buildah)")
    bundle = make_bundle()
    reference, _, _ = pushed(f"{bundle.path}/", repository)
    buildah = [
        "buildah",
        "--root",
        str(tmp_path / "root"),
        "--runroot",
        str(tmp_path / "run"),
        "--storage-driver",
        "vfs",
    ]
    source = reference.replace("oci://", "docker://")

    def run(*arguments: str) -> str:
        done = subprocess.run([*buildah, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = run("from", "--tls-verify=false", source)
    try:
        mounted = Path(run("mount", container))
        assert [path.name for path in mounted.iterdir() if path.name == "models"] == ["models"]
        assert content(mounted / "models") == content(bundle.path)
        [entry] = folder.entries(mounted)
        assert entry.tag == f"{bundle.name}:{bundle.version}"
    finally:
        run("rm", container)


def test_a_signature_goes_along(make_bundle: MakeBundle, repository: str, keys: Keys, tmp_path: Path) -> None:
    bundle = make_bundle()
    private, public = keys("release")
    unsigned, _, _ = pushed(f"{bundle.path}/", repository)
    assert duet_models("sign", f"{bundle.path}/", "--key", private).exit_code == 0
    result = duet_models("push", f"{bundle.path}/", repository)
    assert result.stdout.splitlines()[0] == f"pushed {bundle.name}:{bundle.version}, signed"
    signed = result.stdout.splitlines()[2]
    assert signed != unsigned
    into = tmp_path / "mount"
    duet_models("pull", unsigned, "--into", into)
    assert not (into / bundle.name / bundle.version / SIGNATURE).exists()
    duet_models("pull", signed, "--into", into)
    assert (into / bundle.name / bundle.version / SIGNATURE).read_bytes() == (bundle.path / SIGNATURE).read_bytes()
    for reference in (unsigned, signed):
        duet_models("pull", reference)
    assert "signed by" in duet_models("verify", bundle.name, "--key", public).stdout


# --- What is refused


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


def test_a_damaged_copy_in_a_folder_is_replaced(make_bundle: MakeBundle, repository: str, tmp_path: Path) -> None:
    bundle = make_bundle()
    reference, _, _ = pushed(f"{bundle.path}/", repository)
    into = tmp_path / "mount"
    duet_models("pull", reference, "--into", into)
    (into / bundle.name / bundle.version / "card.md").write_text("damaged")
    assert duet_models("pull", reference, "--into", into).exit_code == 0
    assert content(into / bundle.name / bundle.version) == content(bundle.path)
    assert MANIFEST in content(bundle.path)


@pytest.mark.slow
def test_pulls_of_the_same_bundle_at_the_same_time_agree(
    make_bundle: MakeBundle, repository: str, tmp_path: Path
) -> None:
    """Two pods on a shared volume, or two init containers of one."""
    bundle = make_bundle()
    reference, _, _ = pushed(f"{bundle.path}/", repository)
    into = tmp_path / "mount"
    command = [sys.executable, "-m", "training", "models", "pull", reference, "--into", str(into)]
    pulls = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(4)]
    outputs = [pull.communicate(timeout=PATIENCE)[0].decode() for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0] * 4, outputs
    assert [path.name for path in into.iterdir()] == [bundle.name]
    assert [path.name for path in (into / bundle.name).iterdir()] == [bundle.version]
    assert content(into / bundle.name / bundle.version) == content(bundle.path)
