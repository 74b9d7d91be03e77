"""Send a bundle to a registry, and get one from there."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from services.delivery.distribution import Advance, DeliveryError, Repository
from services.delivery.image import ROOT, Blob, image_of
from services.delivery.reference import Reference
from services.inference.bundle import SIGNATURE, Bundle, BundleError, load
from services.inference.unlisted import unlisted
from services.inference.unpack import unpack

TAR = ("tar", "tar+gzip", "tar.gzip")  # how the media types of the layers that can be read end
Begin = Callable[[str, int], Advance]


@dataclass(frozen=True)
class Pushed:
    """Where a bundle is now, by digest, and the bytes that were sent and that the registry had already."""

    reference: Reference
    sent: int
    kept: int


def push(bundle: Bundle, repository: Repository, tag: str, begin: Begin) -> Pushed:
    """Send what the repository does not have of a verified bundle, then name it by a tag.

    Args:
        bundle: to send, with its signature if it has one.
        repository: where to.
        tag: of the image; it moves if it is another one's.
        begin: is told the name and the bytes of each blob, and gives what to call with the bytes sent of it.

    Raises:
        DeliveryError: see `Repository`.
    """
    image = image_of(bundle)
    sent = kept = 0
    for blob in {blob.digest: blob for blob in (*image.layers, *image.configs)}.values():
        if repository.has(blob.digest):
            kept += blob.size
            continue
        repository.upload(blob.digest, blob.size, partial(_counted, blob, begin(blob.name, blob.size)))
        sent += blob.size
    for name, blob in [*((manifest.digest, manifest) for manifest in image.manifests), (tag, image.index)]:
        repository.tag(name, blob.media_type, b"".join(blob.content()))
        sent += blob.size
    return Pushed(replace(repository.reference, tag="", digest=image.index.digest), sent, kept)


def _counted(blob: Blob, advance: Advance) -> Iterator[bytes]:
    for chunk in blob.content():
        yield chunk
        advance(len(chunk))


def pull(repository: Repository, scratch: Path, begin: Begin) -> tuple[Bundle, str]:
    """Get the bundle that the repository's reference names; returns it, verified, and the digest of its image.

    Args:
        repository: where from.
        scratch: an empty folder; the bundle lies below it.
        begin: see `push`.

    Raises:
        DeliveryError: see `Repository`; or the tag names another digest than the reference, or no image.
        BundleError: the image holds no bundle, or one that does not verify.
    """
    reference = repository.reference
    document, digest = repository.manifest(reference.tag or reference.digest)
    if reference.digest and digest != reference.digest:
        raise DeliveryError(
            f"{reference}: the tag {reference.tag} moved: it names {digest}; pull by the digest alone, or by the new"
        )
    try:
        manifest: Any = json.loads(document)
        if "manifests" in manifest:  # the layers of all architectures are the same
            manifest = json.loads(repository.manifest(str(manifest["manifests"][0]["digest"]))[0])
        layers = [(str(one["mediaType"]), str(one["digest"]), int(one["size"])) for one in manifest["layers"]]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise DeliveryError(f"{reference}: not the manifest of an image; name what `duet models push` sent") from None
    for number, (media_type, blob, size) in enumerate(layers):
        if not media_type.endswith(TAR):
            raise BundleError(
                f"{reference}: holds no bundle: a layer is {media_type}, not an archive; "
                "name what `duet models push` sent"
            )
        part = scratch / "layer"
        repository.download(blob, size, part, begin(f"layer {number + 1} of {len(layers)}", size))
        _unpack(part, scratch, reference)
        part.unlink()
    try:
        bundle = load(scratch / ROOT)
        for name in unlisted(bundle):
            raise BundleError(f"{bundle.path / name}: a file that the manifest does not list; push the bundle again")
    except BundleError as error:
        raise BundleError(f"{reference}: holds no bundle that verifies: {error}".replace(f"{scratch}/", "")) from None
    return bundle, digest


def _unpack(archive: Path, scratch: Path, reference: Reference) -> None:
    """Unpack the files below `models/`; what else an image has, such as a shell for KServe, is left out."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name != ROOT and not name.startswith(f"{ROOT}/"):
                    continue
                if not (member.isfile() or member.isdir()) or Path(name).name.startswith(".wh."):
                    raise BundleError(f"{reference}: holds no bundle: {name} is not a plain file")
                unpack(tar, member, name, scratch)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BundleError(f"{reference}: holds no bundle: a layer cannot be unpacked ({error})") from None


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A hidden folder in `folder`, which is made if need be, for what is not complete yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".duet-pull-") as scratch:
        yield Path(scratch)


def place(bundle: Bundle, folder: Path, scratch: Path) -> Path:
    """Move a bundle from `scratch` in `folder` to NAME/VERSION below `folder`; returns where it is.

    What verifies there stays, and gets the signature. What does not is replaced.
    """
    target = folder / bundle.name / bundle.version
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        try:
            there = load(target)
        except BundleError:
            target.rename(scratch / "damaged")
        else:
            if there.digest == bundle.digest and not unlisted(there):
                if (bundle.path / SIGNATURE).exists():
                    os.replace(bundle.path / SIGNATURE, target / SIGNATURE)
                return target
            target.rename(scratch / "other")
    try:
        return bundle.path.rename(target)
    except OSError:
        if not target.exists():
            raise
        return place(bundle, folder, scratch)  # another pull was faster
