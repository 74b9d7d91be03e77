"""Sites: overlays as users write them, with digests, keys and a password, of every component that may go together."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests.objects import Objects
from deploy.manifests.render import KUBECTL, files, render

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
TARGETS = ("base", "overlays/laptop", "overlays/production", "overlays/canary")
COMPONENTS = tuple(sorted(folder.name for folder in (KUBERNETES / "components").iterdir()))
EXCLUSIVE = (
    {"cpu-hpa", "keda"},
    {"redis", "redis-outside"},
    {"models-packed", "models-image-volume", "models-init-container"},
)
SERVICES = ("generation", "classification", "anomaly")
NAMES = (
    "duet",
    "duet-loadtest",
    "redis",
    "redis-exporter",
    *(f"duet-{service}{suffix}" for service in SERVICES for suffix in ("", "-canary")),
)
KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"


def digest(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


@cache
def own(target: str) -> frozenset[str]:
    """The components that an overlay brings along."""
    found = {path.parent.name for path, content in files(KUBERNETES / target) if content["kind"] == "Component"}
    return frozenset(found)


def fit(target: str, *components: str) -> bool:
    """Whether components may be added to an overlay."""
    everything = own(target) | set(components)
    return not own(target) & set(components) and all(len(group & everything) <= 1 for group in EXCLUSIVE)


def pairs(target: str) -> Iterator[tuple[str, ...]]:
    """What may be added to an overlay: nothing, each component, each two components."""
    for count in range(3):
        yield from (some for some in itertools.combinations(COMPONENTS, count) if fit(target, *some))


def site(target: str, components: tuple[str, ...]) -> dict[str, Any]:
    """The kustomization of a site, with paths from the root of the repository."""
    chosen = sorted(components, key=lambda name: (name == "openshift", name))
    if not (own(target) | set(chosen)) & EXCLUSIVE[2]:
        chosen = ["models-packed", *chosen]
    everything = own(target) | set(chosen)
    written: dict[str, Any] = {
        "namespace": "duet",
        "resources": [f"deploy/kubernetes/{target}"],
        "components": [f"deploy/kubernetes/components/{name}" for name in chosen],
        "images": [{"name": name, "newName": f"registry.example.com/{name}", "digest": digest(name)} for name in NAMES],
        "patches": [],
    }
    if "trusted-keys" in everything:
        written["configMapGenerator"] = [{"name": "duet-trusted-keys", "literals": [f"release.pem={KEY}"]}]
    if everything & {"redis", "redis-outside"}:
        literals = ["password=a1b2c3", "url=rediss://duet:a1b2c3@cache.example.com:6380"]
        written["secretGenerator"] = [{"name": "duet-redis", "literals": literals}]
    for service in SERVICES:
        bundle = f"registry.example.com/duet-models-{service}@{digest(service)}"
        spec: dict[str, Any] = {}
        if "models-image-volume" in everything:
            spec = {"volumes": [{"name": "models", "image": {"reference": bundle}}]}
        if "models-init-container" in everything:
            pull = {"name": "pull", "args": ["models", "pull", f"oci://{bundle}", "--into", "/models"]}
            spec = {"initContainers": [pull]}
        if spec:
            patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "any"}}
            selector = {"kind": "Deployment", "labelSelector": f"app.kubernetes.io/name=duet-{service}"}
            text = yaml.safe_dump(patch | {"spec": {"template": {"spec": spec}}})
            written["patches"].append({"target": selector, "patch": text})
    return written


@cache
def objects(target: str, *components: str) -> Objects:
    """A site's objects; do not change them."""
    return rendered(site(target, components))


def rendered(written: dict[str, Any]) -> Objects:
    """The objects of a kustomization whose paths start at the root of the repository."""
    if shutil.which("kubectl") is None:
        pytest.skip(KUBECTL)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), written)
        return list(yaml.load_all(render(Path(folder)), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def write(folder: Path, written: dict[str, Any]) -> None:
    """Kustomize takes relative paths only."""
    here = Path(os.path.relpath(ROOT.resolve(), folder.resolve()))
    moved = {field: [str(here / path) for path in written.get(field, [])] for field in ("resources", "components")}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written | moved))
