"""A bundle as an OCI image: what an image volume, KServe and `duet models pull` can read.

Each file of the bundle is a layer, a tar with `models/NAME`, so that unchanged files are not sent again. Layers are
not compressed: weights hardly shrink, and a digest would depend on the version of zlib. Owner, times and modes are
fixed, so the same bundle has the same digest. The image is an index for two architectures, because runtimes refuse an
image of another architecture, even one without a program; they share all layers.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from services.delivery.distribution import CHUNK_BYTES, INDEX, MANIFEST, Content
from services.inference import bundle as bundles
from services.inference.bundle import SIGNATURE, Bundle

ROOT = "models"  # where KServe looks in an image
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = ("amd64", "arm64")
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Blob:
    """What a registry keeps by digest; `content` begins anew at each call."""

    name: str
    media_type: str
    digest: str
    size: int
    content: Content

    @property
    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """Everything to send: layers, the rest of an architecture, and last what names them all."""

    layers: tuple[Blob, ...]
    configs: tuple[Blob, ...]
    manifests: tuple[Blob, ...]
    index: Blob


def image_of(bundle: Bundle) -> Image:
    """The image of a verified bundle, with its signature if it has one."""
    names = [bundles.MANIFEST, *sorted(bundle.manifest.files)]
    names += [SIGNATURE] if (bundle.path / SIGNATURE).exists() else []
    layers = tuple(_blob(name, LAYER, partial(_tar, bundle.path / name, name)) for name in names)
    about = {
        "org.opencontainers.image.title": bundle.name,
        "org.opencontainers.image.version": bundle.version,
        "duet.task": bundle.manifest.task,
        "duet.digest": bundle.digest,
    }
    configs, manifests, listed = [], [], []
    for architecture in ARCHITECTURES:
        config = _json(
            f"config for {architecture}",
            CONFIG,
            {
                "architecture": architecture,
                "os": "linux",
                "created": EPOCH,
                "config": {"Labels": about},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
                "history": [{"created": EPOCH, "created_by": f"duet models push: {layer.name}"} for layer in layers],
            },
        )
        fields: dict[str, object] = {"config": config.descriptor, "layers": [layer.descriptor for layer in layers]}
        manifest = _document(f"manifest for {architecture}", MANIFEST, {**fields, "annotations": about})
        configs.append(config)
        manifests.append(manifest)
        listed.append({**manifest.descriptor, "platform": {"architecture": architecture, "os": "linux"}})
    index = _document("index", INDEX, {"manifests": listed, "annotations": about})
    return Image(layers, tuple(configs), tuple(manifests), index)


def _document(name: str, media_type: str, fields: dict[str, object]) -> Blob:
    return _json(name, media_type, {"schemaVersion": 2, "mediaType": media_type, **fields})


def _json(name: str, media_type: str, fields: dict[str, object]) -> Blob:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return _blob(name, media_type, lambda: iter([text]))


def _blob(name: str, media_type: str, content: Content) -> Blob:
    digest, size = hashlib.sha256(), 0
    for chunk in content():
        digest.update(chunk)
        size += len(chunk)
    return Blob(name, media_type, f"sha256:{digest.hexdigest()}", size, content)


def _tar(path: Path, name: str) -> Iterator[bytes]:
    """The bytes of an archive with one file below `models/`."""
    inside = PurePosixPath(ROOT, name)
    for parent in list(reversed(inside.parents))[1:]:
        yield _head(str(parent), tarfile.DIRTYPE, 0o755, 0)
    size = path.stat().st_size
    yield _head(str(inside), tarfile.REGTYPE, 0o644, size)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _head(name: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    return info.tobuf(tarfile.PAX_FORMAT)
