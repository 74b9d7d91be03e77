"""The image of the load test, built with its lock, runs its Job with the limits of its pod against a real service."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.manifests.objects import of_kind, pod
from tests.conftest import PATIENCE, Serve
from tests.images.conftest import ROOT, run
from tests.images.pod import Object, confined, start
from tests.manifests.sites import objects

pytestmark = [pytest.mark.nightly, pytest.mark.server]

PACKAGES = "python3,python3-pip,ca-certificates"
OURS = """
rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED
"""  # Debian's pip is for Debian's packages; an image of Python has none of that file
USER = (10001, 10001)


@pytest.fixture(scope="module")
def image(storage: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Object, Path]:
    """The configuration of the image, and its root."""
    scratch, environment = tmp_path_factory.mktemp("loadtest"), storage("loadtest-storage")
    tree = scratch / "base.tar"
    chosen = ["--variant=minbase", f"--customize-hook={OURS}", f"--include={PACKAGES}"]
    run(environment, "mmdebstrap", "--quiet", *chosen, "bookworm", tree)
    run(environment, "tar", "--file", tree, "--wildcards", "--delete", "./dev/*")
    made = run(environment, "buildah", "from", "scratch")
    run(environment, "buildah", "add", made, tree, "/")
    run(environment, "buildah", "commit", "--rm", made, "localhost/python:pip")
    build = ["buildah", "bud", "--file", ROOT / "deploy/loadtest/Containerfile", "--tag", "localhost/duet-loadtest"]
    build += ["--build-arg", "BASE=localhost/python:pip", "--pull-never"]
    if authorities := ssl.get_default_verify_paths().cafile or os.environ.get("SSL_CERT_FILE"):  # of an index
        build += ["--volume", f"{authorities}:/etc/ssl/certs/ca-certificates.crt:ro"]
    run(environment, *build, ROOT)
    described = json.loads(run(environment, "buildah", "inspect", "--type", "image", "localhost/duet-loadtest"))
    container = run(environment, "buildah", "from", "--pull-never", "localhost/duet-loadtest")
    return described["OCIv1"]["config"], Path(run(environment, "buildah", "mount", container))


def test_a_job_loads_a_service_and_says_whether_it_met_its_objectives(
    image: tuple[Object, Path], serve: Serve, tmp_path: Path
) -> None:
    config, rootfs = image
    job = of_kind(objects("overlays/laptop", "loadtest"), "Job")["duet-loadtest-generation"]
    (container,) = pod(job)["containers"]
    with serve("generation") as server:
        arguments = [server.url if value == "http://duet-generation:3000" else value for value in container["args"]]
        assert server.url in arguments
        specified = confined(job, container, config, rootfs, arguments, USER, {})
        running = start(specified, tmp_path / "bundle", f"duet-loadtest-{os.getpid()}", 0)
        try:
            status = running.process.wait(PATIENCE)
        finally:
            running.end()
    said = running.log.read_text()
    print(said[-2500:])
    assert status == 0, said
    assert "latency-generate: 100 %" in said
    assert "written: /tmp/report/report.json" in said


def test_it_holds_no_torch_and_is_small(image: tuple[Object, Path]) -> None:
    _, rootfs = image
    (site,) = rootfs.glob("usr/local/lib/python3.11/*-packages")
    assert (site / "locust").is_dir()
    assert not (site / "torch").exists()
    size = sum(path.lstat().st_size for path in site.rglob("*")) / 2**20
    print(f"packages of the load test: {size:.0f} MiB")
    assert not list((rootfs / "app").rglob("*.onnx"))  # the models stay where they are served
