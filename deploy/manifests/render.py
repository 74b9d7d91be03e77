"""Rendering an overlay with kubectl, and saying in which file and field its images and keys go wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from deploy.manifests.objects import Object, Objects, images

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
KUBECTL = "kubectl is not installed; it renders overlays (1.27 or newer, tried with 1.32)"


class RenderError(Exception):
    """An overlay cannot be rendered; the message names the file, or quotes kubectl."""


def render(overlay: Path) -> str:
    """The objects of an overlay as YAML.

    Raises:
        RenderError: it has no kustomization, kubectl is missing or refuses it.
    """
    if kustomization(overlay) is None:
        raise RenderError(f"{overlay}: there is no kustomization.yaml; name the folder of an overlay")
    if shutil.which("kubectl") is None:
        raise RenderError(KUBECTL)
    run = subprocess.run(["kubectl", "kustomize", overlay], check=False, capture_output=True, text=True)
    if run.returncode:
        raise RenderError(f"{overlay}: {run.stderr.strip()}")
    return run.stdout


def kustomization(folder: Path) -> Path | None:
    """Its kustomization file."""
    return next((folder / file for file in FILES if (folder / file).is_file()), None)


def files(overlay: Path) -> Iterator[tuple[Path, Object]]:
    """The kustomization files that an overlay is made of, itself first."""
    path = kustomization(overlay)
    if path is None:  # a file of objects, or a remote resource
        return
    content = yaml.safe_load(path.read_text()) or {}
    yield path, content
    for field in ("resources", "components"):
        for entry in content.get(field) or []:
            yield from files(overlay / entry)


def located(overlay: Path, objects: Objects, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """What the checks found, with missing digests and keys named by the file and the field that would give them."""
    kept = list(files(overlay))
    own = kept[0][0]
    if "images" in found:
        unpinned = sorted({image for _, image in images(objects) if not DIGEST.search(image)})
        found = found | {"images": [_source(kept, own, image) for image in unpinned]}
    if "keys" in found:
        remedy = "add { name: duet-trusted-keys, files: [KEY.pem] } with a public key"
        found = found | {"keys": [f"{own}: configMapGenerator: signatures are demanded, and no key is there; {remedy}"]}
    return found


def _source(found: list[tuple[Path, Object]], own: Path, image: str) -> str:
    if image.startswith("oci://"):
        return f"{own}: patches: the bundle {image} has no digest; name it as oci://REGISTRY/NAME@sha256:..."
    bare = image.rpartition("/")[2].partition(":")[0]
    for path, content in found:
        for number, entry in enumerate(content.get("images") or []):
            if image.startswith(entry.get("newName", entry["name"])) or entry["name"] == bare:
                field = "digest" if "digest" in entry else "newTag" if "newTag" in entry else "newName"
                value = entry.get(field, image)
                return (
                    f"{path}: images[{number}].{field}: {value!r} of {entry['name']} is no digest, and tags move; "
                    "write `digest: sha256:...` in its place"
                )
    return (
        f"{own}: images: {bare} has no digest; add {{ name: {bare}, newName: REGISTRY/{bare}, digest: sha256:... }}, "
        "or a patch where it is the image of a volume"
    )
