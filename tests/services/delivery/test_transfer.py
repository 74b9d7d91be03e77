"""Push to a real registry and pull from it: the bundle, the digest, what is sent twice, and what is refused."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.delivery.distribution import INDEX
from services.delivery.distribution import MANIFEST as MANIFEST_TYPE
from services.inference import folder, registry
from services.inference.bundle import MANIFEST, SIGNATURE, Bundle, load, seal
from tests.conftest import PATIENCE, ROOT
from tests.registries import content, duet_models, pushed
from tests.services.conftest import Keys

MakeBundle = Callable[..., Bundle]

pytestmark = [pytest.mark.usefixtures("empty_store"), pytest.mark.server]

HTTP = httpx.Client(headers={"Connection": "close"})  # one for all: making one takes a tenth of a second


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
