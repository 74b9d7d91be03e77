"""Checks of what runs: images, models, and the keys that signed them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy.manifests import objects as o
from deploy.manifests.objects import Objects, containers, name, of_kind, pod, services, serving, variables, volumes

DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
PEM = "-----BEGIN PUBLIC KEY-----"


def digests(objects: Objects) -> Iterator[str]:
    """Each image, of a container or a volume, and each bundle that is pulled has a digest, for tags move."""
    for where, image in o.images(objects):
        if not DIGEST.fullmatch(image):
            yield f"{where}: {image} has no digest"


def models(objects: Objects) -> Iterator[str]:
    """Models come from one place, which DUET_BUNDLES names and the service cannot write."""
    for item in services(objects):
        container, bundles = serving(item), variables(objects, serving(item)).get("DUET_BUNDLES")
        packed = item["spec"]["template"]["metadata"].get("annotations", {}).get("duet/models") == "packed"
        mounts = [mount for mount in container.get("volumeMounts", []) if _below(mount["mountPath"], bundles)]
        if bundles is None:
            yield f"{name(item)}: DUET_BUNDLES is not set"
        if packed == bool(mounts):
            yield (
                f"{name(item)}: models come from {'two places' if packed else 'nowhere'}; take one of the components "
                "models-packed, models-image-volume and models-init-container"
            )
        for mount in mounts:
            if mount.get("readOnly") is not True:
                yield f"{name(item)}: volumeMounts[{mount['name']}].readOnly is not true"


def _below(path: str, folder: str | None) -> bool:
    return folder is not None and f"{path}/".startswith(f"{folder.rstrip('/')}/")


def keys(objects: Objects) -> Iterator[str]:
    """Where signatures are demanded (DUET_TRUSTED_KEYS), there is a public key."""
    maps = of_kind(objects, "ConfigMap")
    for item in services(objects):
        folder = variables(objects, serving(item)).get("DUET_TRUSTED_KEYS")
        if not folder:
            continue
        mounted = [m["name"] for m in serving(item).get("volumeMounts", []) if m["mountPath"] == folder]
        named = [volumes(item).get(volume, {}).get("configMap", {}).get("name", "") for volume in mounted]
        files = [file for config in named for file in (maps.get(config, {}).get("data") or {}).items()]
        if not any(file.endswith((".pem", ".pub")) and PEM in text for file, text in files):
            yield f"{name(item)}: DUET_TRUSTED_KEYS: {folder} holds no public key"


def references(objects: Objects) -> Iterator[str]:
    """ConfigMaps, Secrets and volumes that pods name are there, or the site (duet-redis) or cert-manager makes them."""
    maps = set(of_kind(objects, "ConfigMap"))
    secrets = {"duet-redis"} | set(of_kind(objects, "Secret"))
    secrets |= {item["spec"]["secretName"] for item in of_kind(objects, "Certificate").values()}
    for item in o.workloads(objects):
        used: list[tuple[str, str]] = []
        for volume in pod(item).get("volumes", []):
            used += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            used += [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []
        for container in containers(item):
            for source in container.get("envFrom", []):
                used += [("ConfigMap", source["configMapRef"]["name"])] if "configMapRef" in source else []
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                used += [("Secret", reference["name"])] if reference else []
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes(item):
                    yield f"{name(item)}: volumeMounts: there is no volume {mount['name']}"
        for kind, key in used:
            if key not in (maps if kind == "ConfigMap" else secrets):
                yield f"{name(item)}: there is no {kind} {key}"
