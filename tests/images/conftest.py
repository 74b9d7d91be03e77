"""A base image of Debian packages in a real registry, and images of this commit that are built on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.services.delivery.conftest import start_registry

ROOT = Path(__file__).parents[2]
PACKAGES = {  # program -> Debian's package
    "buildah": "buildah",
    "skopeo": "skopeo",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "docker-registry": "docker-registry",
    "kubectl": "kubernetes-client",
}
SECCOMP = Path("/usr/share/containers/seccomp.json")
# What a base has: Python and the libraries of C++, without a shell, dpkg or anything else that runs.
BASE_PACKAGES = "python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,netbase,tzdata"
STRIP = """
cd "$1"
find bin sbin usr/bin usr/sbin -not -type d -not -name python3.11 -delete
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/perl5
ln -s python3.11 usr/bin/python3
chmod 1777 tmp
"""

Build = Callable[..., "Built"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is missing once, before anything is built."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    missing += [] if SECCOMP.exists() else ["golang-github-containers-common"]
    reason = f"not installed (Debian: apt-get install {' '.join(missing)})" if missing else ""
    if os.geteuid():
        reason = "building and running images here takes root"
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Built:
    """An image.

    Attributes:
        layout: its OCI layout, below the clone of the repository that it was built in.
        name: its name in buildah's storage.
        environment: with which programs find that storage.
    """

    layout: Path
    name: str
    environment: dict[str, str]

    def blob(self, digest: str) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.layout / "blobs" / digest.replace(":", "/")).read_text())
        return content

    @property
    def index_digest(self) -> str:
        (entry,) = json.loads((self.layout / "index.json").read_text())["manifests"]
        return str(entry["digest"])

    def manifest(self, architecture: str = "amd64") -> dict[str, object]:
        for entry in self.blob(self.index_digest)["manifests"]:  # type: ignore[attr-defined]
            if entry["platform"]["architecture"] == architecture:
                return self.blob(entry["digest"])
        raise AssertionError(architecture)

    def config(self, architecture: str = "amd64") -> dict[str, object]:
        return self.blob(self.manifest(architecture)["config"]["digest"])  # type: ignore[index]

    def layers(self, architecture: str = "amd64") -> list[str]:
        return [layer["digest"] for layer in self.manifest(architecture)["layers"]]  # type: ignore[attr-defined]


def run(environment: dict[str, str], *command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def storage(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, str]]]:
    """An environment in which buildah and skopeo have a storage of their own and speak HTTP to the registry."""
    made: list[dict[str, str]] = []

    def make(name: str) -> dict[str, str]:
        home = tmp_path_factory.mktemp(name)
        configuration = home / ".config/containers"
        configuration.mkdir(parents=True)
        (configuration / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{home}/run"\ngraphroot = "{home}/storage"\n'
        )
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("DUET_", "BENTOML_"))}
        made.append(mine)
        mine |= {
            "HOME": str(home),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),  # uv's wheels
            "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        return mine

    yield make
    for environment in made:
        subprocess.run(["buildah", "rm", "--all"], env=environment, check=False, capture_output=True)
        unmount_below(environment["HOME"])


def unmount_below(folder: str) -> None:
    """pytest cannot remove a folder in which something is still mounted."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in reversed([path for path in mounted if path.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture(scope="session")
def base(registry: str, storage: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """NAME@sha256:DIGEST of an index with a base for amd64 and one for arm64."""
    scratch, environment = tmp_path_factory.mktemp("base"), storage("base")
    run(environment, "buildah", "manifest", "create", "localhost/base:index")
    for architecture in ("amd64", "arm64"):
        tree = scratch / f"{architecture}.tar"
        hook = ["--variant=extract", f"--extract-hook={STRIP}", f"--include={BASE_PACKAGES}"]
        run(environment, "mmdebstrap", "--quiet", f"--arch={architecture}", *hook, "bookworm", tree)
        run(environment, "tar", "--file", tree, "--wildcards", "--delete", "./dev/*")
        made = run(environment, "buildah", "from", "scratch")
        run(environment, "buildah", "add", made, tree, "/")
        run(environment, "buildah", "config", "--os", "linux", "--arch", architecture, made)
        name = f"localhost/base:{architecture}"
        run(environment, "buildah", "commit", "--rm", made, name)
        run(environment, "buildah", "manifest", "add", "localhost/base:index", f"containers-storage:{name}")
    digest = scratch / "digest"
    push = ["buildah", "manifest", "push", "--all", "--digestfile", str(digest), "localhost/base:index"]
    run(environment, *push, f"docker://{registry}/base:1")
    return f"{registry}/base@{digest.read_text().strip()}"


@pytest.fixture(scope="session")
def build(base: str, storage: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build an image: `build("first", "mnist-cnn")`. Each name has a clone and a storage of its own."""
    places: dict[str, tuple[Path, dict[str, str]]] = {}
    revision = run(dict(os.environ), "git", "-C", ROOT, "rev-parse", "HEAD")

    @cache
    def start(place: str, model: str, *options: str) -> Built:
        if place not in places:
            clone, environment = tmp_path_factory.mktemp("clone") / "duet", storage(place)
            run(environment, "git", "clone", "--quiet", "--shared", ROOT, clone)
            run(environment, "git", "-C", clone, "checkout", "--quiet", "--detach", revision)
            places[place] = clone, environment | {"PYTHONPATH": str(clone)}
        clone, environment = places[place]
        duet = [sys.executable, "-m", "training", "models", "import"]
        run(environment, *duet, clone / "services/reference" / model, cwd=clone)
        image = ["duet-classification", "--models", model, *options]
        run(environment, sys.executable, "-m", "deploy.image", base, *image, cwd=clone)
        layout = tmp_path_factory.mktemp("layout") / "duet-classification"
        shutil.copytree(clone / "build/images", layout.parent, dirs_exist_ok=True)
        return Built(layout, "localhost/duet-classification:amd64", environment)

    return start
