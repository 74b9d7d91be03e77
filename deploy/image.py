"""`make images`: build the container images of a commit into build/images, with a bill of materials beside each.

    python -m deploy.image BASE@sha256:DIGEST [IMAGE...] [--platforms linux/amd64,linux/arm64] [--models NAME,...]

The commit gives code and lock, the model store the bundles; uncommitted changes are left out. Wheels are installed
here, outside of any container, because that only unpacks them: no code of theirs runs, their hashes are checked
against the lock, no index and no password gets into a layer, and another architecture needs no emulation. The build
itself has no network. Times, owners, modes and bytecode are fixed, so the same commit, base and bundles give the same
digest; a layer has the digest of its content alone, and the dependencies keep theirs from commit to commit.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from deploy.install import ROOT, InstallError, step, uv_settings
from services.inference.bundle import MANIFEST, SIGNATURE, Bundle, BundleError, load

OUT = ROOT / "build" / "images"
IMAGES = ("duet", "duet-generation", "duet-classification", "duet-anomaly")  # targets of the Containerfile
PYTHON = "3.11"  # of the base
SITE = f"lib/python{PYTHON}/site-packages"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = "manylinux_2_28"  # Debian 12 has 2.36
PREFIX = "org.opencontainers.image."
LAUNCHER = "#!/app/bin/python3\nfrom training.cli import main\n\nmain()\n"
NEEDS = {"buildah": "buildah", "skopeo": "skopeo", "git": "git"}  # program -> Debian's package


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description="Build the images of a commit.")
    parser.add_argument("base", metavar="BASE@sha256:DIGEST", help="an image with Python 3.11, without pip")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"some of {', '.join(IMAGES)}; by default all")
    parser.add_argument("--platforms", default=f"linux/{architecture_here()}", help="linux/amd64,linux/arm64 or one")
    parser.add_argument("--models", default="", help="NAME or NAME:VERSION, separated by commas; the newest of every")
    given = parser.parse_args()
    images = given.images or list(IMAGES)
    architectures = [part.removeprefix("linux/") for part in given.platforms.split(",")]
    check(given.base, images, architectures)
    bases = base_of_each(given.base, {*architectures, architecture_here()})
    revision = git("rev-parse", "HEAD")
    if git("status", "--porcelain"):
        print("Uncommitted changes are not in the images.", flush=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    contents: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="duet-images-") as scratch:
        context = Path(scratch)
        prepare(context, revision, architectures)
        for image in images:
            models = copy_models(context, image.removeprefix("duet-"), given.models) if image != "duet" else []
            build(context, image, bases, architectures, about(image, revision, given.base, context / "source", models))
            for architecture in architectures:
                if architecture not in contents:  # models are not in it, and all else is the same in all images
                    contents[architecture] = read_materials(context, image, architecture)
                write_materials(contents[architecture], image, architecture, models)
            print(f"{image}@{digest(image)}", flush=True)
    print(f"They are in {OUT.relative_to(ROOT)}. Push one, here {images[-1]}, with")
    print(f"  skopeo copy --all oci:{OUT.relative_to(ROOT)}/{images[-1]} docker://REGISTRY/{images[-1]}:TAG")


def architecture_here() -> str:
    machine = platform.machine()
    return next((name for name, other in MACHINES.items() if other == machine), machine)


def check(base: str, images: list[str], architectures: list[str]) -> None:
    """Refuse what cannot be built, before anything takes time."""
    for image in images:
        if image not in IMAGES:
            raise InstallError(f"IMAGE: {image!r} is not one of {', '.join(IMAGES)}")
    if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", base):
        raise InstallError(
            f"BASE: {base!r} has no digest, so it could be another image tomorrow; give NAME@sha256:DIGEST "
            "(skopeo inspect --format '{{.Digest}}' docker://NAME:TAG)"
        )
    for architecture in architectures:
        if architecture not in MACHINES:
            raise InstallError(f"--platforms: 'linux/{architecture}' is not one of linux/amd64, linux/arm64")
    for program, package in NEEDS.items():
        if shutil.which(program) is None:
            raise InstallError(f"{program} is not installed; on Debian and Ubuntu: sudo apt-get install {package}")


def base_of_each(base: str, architectures: set[str]) -> dict[str, str]:
    """Architecture -> the base for it, by the digest of that one image.

    An index would not do: buildah takes what it has stored for one architecture for all.
    """
    found = subprocess.run(["skopeo", "inspect", "--raw", f"docker://{base}"], check=False, capture_output=True)
    if found.returncode:
        raise InstallError(f"BASE: {base} cannot be read: {found.stderr.decode().strip()}")
    name = base.partition("@")[0]
    listed = json.loads(found.stdout).get("manifests")
    if listed is None:  # the image of one architecture
        return dict.fromkeys(architectures, base)
    digests = {entry["platform"]["architecture"]: entry["digest"] for entry in listed}
    missing = architectures - digests.keys()
    if missing:
        raise InstallError(f"BASE: {base} has no image for {', '.join(sorted(missing))}")
    return {architecture: f"{name}@{digests[architecture]}" for architecture in architectures}


def prepare(context: Path, revision: str, architectures: list[str]) -> None:
    """Write what the Containerfile copies: source, dependencies, code."""
    archive = context / "source.tar"
    step("Reading the commit", ["git", "-C", ROOT, "archive", "--output", archive, revision])
    source = context / "source"
    source.mkdir()
    step("Unpacking it", ["tar", "--extract", "--file", archive, "--directory", source])
    for architecture in architectures:
        install_dependencies(context, architecture)
    install_code(context)
    readable(context)


def copy_models(context: Path, task: str, selection: str) -> list[Bundle]:
    """Copy the selected bundles of a task, verified, to models/TASK/NAME/VERSION."""
    from services.inference import registry  # noqa: PLC0415 - imports BentoML, which what is refused need not wait for

    found = [load(entry.path) for entry in registry.resolve(selection, [task])]
    if not found:
        raise InstallError(f"The store has no model for {task}; train one, or import one with `duet models import`")
    for bundle in found:
        for name in (MANIFEST, *bundle.manifest.files, SIGNATURE):
            if (bundle.path / name).exists():  # a bundle without a signature is one, too
                copy = context / "models" / task / bundle.name / bundle.version / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.path / name, copy)
    readable(context / "models")
    return found


def readable(folder: Path) -> None:
    """Whatever the umask is: any user may read, and none but the owner may write."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def install_dependencies(context: Path, architecture: str) -> None:
    target = context / "dependencies" / architecture / SITE
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--link-mode", "copy", "--target", target]
    command += ["--python-version", PYTHON, "--python-platform", f"{MACHINES[architecture]}-{GLIBC}"]
    command += ["--require-hashes", "--no-deps", "--no-build"]  # no-build: nothing but wheels
    lock = context / "source/deploy/requirements/serve.txt"
    command += ["--requirement", lock]
    step(f"Installing the dependencies for {architecture}", command, uv_settings(sys.executable))
    shutil.rmtree(target / "bin")  # their programs name the Python of this machine
    for path in (target / ".lock", *target.glob("*.dist-info/uv_cache.json"), *target.glob("*.dist-info/RECORD")):
        path.unlink()  # the records list what was removed, with times


def install_code(context: Path) -> None:
    """The wheel's content, without the reference bundles: an image has its models in a layer of their own."""
    build_wheel = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    source, target = context / "source", context / "code" / SITE
    build = [sys.executable, "-c", f"import os; os.chdir({str(source)!r}); {build_wheel}", context]
    step("Building the wheel", build)
    (wheel,) = context.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if not name.startswith("services/reference/"):
                packed.extract(name, target)
    for record in target.glob("*.dist-info/RECORD"):
        record.unlink()
    launcher = context / "code/bin/duet"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def about(image: str, revision: str, base: str, source: Path, models: list[Bundle]) -> dict[str, str]:
    """The labels of an image."""
    version = re.search(r'__version__ = "(.+)"', (source / "services/__init__.py").read_text())
    origin = git("config", "--get", "remote.origin.url", check=False)
    labels = {
        "title": image,
        "version": version[1] if version else "",
        "revision": revision,
        "created": git("show", "--no-patch", "--format=%cI", revision),
        "source": re.sub(r"//[^/@]*@", "//", origin),  # without a user and a password
        "licenses": "Apache-2.0",
        "base.name": base.partition("@")[0],
        "base.digest": base.partition("@")[2],
    }
    named = {f"{PREFIX}{key}": value for key, value in labels.items() if value}
    return named | {f"duet.bundle.{bundle.name}": f"sha256:{bundle.digest}" for bundle in models}


def build(
    context: Path,
    image: str,
    bases: dict[str, str],
    architectures: list[str],
    labels: dict[str, str],
) -> None:
    """One image for each architecture, and the index of them in an OCI layout."""
    common = ["buildah", "bud", "--layers", "--timestamp", "0", "--network", "none"]
    common += ["--file", context / "source/deploy/Containerfile", "--target", image.removeprefix("duet-")]
    common += ["--build-arg", f"BUILDER={bases[architecture_here()]}"]
    common += [part for key, value in sorted(labels.items()) for part in ("--label", f"{key}={value}")]
    names = []
    for architecture in architectures:
        names.append(f"localhost/{image}:{architecture}")
        chosen = ["--platform", f"linux/{architecture}", "--build-arg", f"BASE={bases[architecture]}"]
        step(f"Building {image} for {architecture}", [*common, *chosen, "--tag", names[-1], context])
    index = f"localhost/{image}:index"
    subprocess.run(["buildah", "manifest", "rm", index], check=False, capture_output=True)  # of an earlier build
    step(f"Naming {image}", ["buildah", "manifest", "create", index])
    for name in names:
        step(f"Naming {image}", ["buildah", "manifest", "add", index, f"containers-storage:{name}"])
    step(f"Writing {image}", ["buildah", "manifest", "push", "--all", index, f"oci:{OUT / image}"])


def read_materials(scratch: Path, image: str, architecture: str) -> dict[str, Any]:
    """What is installed in an image, as a CycloneDX document."""
    one, output = scratch / f"one-{architecture}", scratch / f"{architecture}.cdx.json"  # syft reads no index
    step(f"Reading {image}", ["skopeo", "copy", "--override-arch", architecture, f"oci:{OUT / image}", f"oci:{one}"])
    syft = [Path(sys.executable).with_name("syft"), "scan", f"oci-dir:{one}", "--output", f"cyclonedx-json={output}"]
    step(f"Listing what is in {image} for {architecture}", syft, {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"})
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def write_materials(found: dict[str, Any], image: str, architecture: str, models: list[Bundle]) -> None:
    """The document of an image: what is installed, and its bundles."""
    subject = {"type": "container", "bom-ref": image, "name": image, "version": digest(image)}
    added = [
        {
            "type": "machine-learning-model",
            "bom-ref": f"{bundle.name}@{bundle.digest}",
            "name": bundle.name,
            "version": bundle.version,
            "properties": [{"name": "duet.digest", "value": f"sha256:{bundle.digest}"}],
        }
        for bundle in models
    ]
    document = {
        **found,
        "metadata": {**found["metadata"], "component": subject},
        "components": [*found["components"], *added],
    }
    (OUT / f"{image}.{architecture}.cdx.json").write_text(json.dumps(document, indent=1))


def digest(image: str) -> str:
    (only,) = json.loads((OUT / image / "index.json").read_text())["manifests"]
    return str(only["digest"])


def git(*arguments: str, check: bool = True) -> str:
    run = subprocess.run(["git", "-C", ROOT, *arguments], check=check, capture_output=True, text=True)
    return run.stdout.strip()


if __name__ == "__main__":
    try:
        main()
    except (InstallError, BundleError) as error:
        sys.exit(str(error))
