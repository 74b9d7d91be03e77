"""`duet models push`, `pull` and `sign`: how a bundle gets to where it is served, and how that place trusts it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from services.delivery.transfer import Begin
    from services.inference.bundle import Bundle

# `duet --help` does without BentoML's store: each command imports it when it runs.
# ruff: noqa: PLC0415

Model = Annotated[
    str, typer.Argument(help="NAME or NAME:VERSION, as `duet models list` shows; with a slash, the folder of a bundle.")
]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="The registry has no TLS. One on this machine never has it.")
]


def bundle_of(model: str) -> Bundle:
    """The verified bundle of a name, or of a folder.

    Raises:
        BundleError: there is none, or it does not verify.
    """
    from services.inference.bundle import load

    if is_folder(model):
        return load(Path(model))
    from services.inference import folder, registry
    from services.settings import read

    settings = read()
    return load(registry.find(model, folder.available(settings), folder.place(settings)).path)


def is_folder(model: str) -> bool:
    """Whether it is the folder of a bundle; a name has no slash."""
    return "/" in model and Path(model).is_dir()


def push(
    model: Model,
    reference: Annotated[
        str, typer.Argument(help="oci://REGISTRY/REPOSITORY[:TAG]. Without a tag it is the bundle's version.")
    ],
    plain_http: PlainHttp = False,
) -> None:
    """Send a bundle to an OCI registry, with its signature if it has one.

    It becomes an image that a pod can mount, and that `duet models pull` reads. The same bundle is always the same
    image. Credentials are those of `podman login` and `docker login`.
    """
    from services.delivery.distribution import Repository
    from services.delivery.reference import parse
    from services.delivery.transfer import push as send
    from services.inference import signature
    from services.inference.bundle import BundleError

    target = parse(reference)
    if target.digest:
        raise BundleError(f"{reference!r}: the bundle decides the digest; give a tag, or nothing")
    bundle = bundle_of(model)
    if signed := signature.read(bundle):
        signature.compare(signed, bundle)
    with Repository(target, plain_http=plain_http) as repository, _progress() as begin:
        pushed = send(bundle, repository, target.tag or bundle.version, begin)
    say(f"pushed {bundle.name}:{bundle.version}{', signed' if signed else ''}")
    say(f"sent {pushed.sent:,} bytes; the registry had {pushed.kept:,}")
    say(str(pushed.reference))


def pull(
    reference: Annotated[
        str,
        typer.Argument(help="oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]; without both, the tag `latest`."),
    ],
    into: Annotated[
        Path | None, typer.Option(help="Folder that gets NAME/VERSION with the bundle, for DUET_BUNDLES.")
    ] = None,
    plain_http: PlainHttp = False,
) -> None:
    """Get a bundle from an OCI registry, verify it, and put it into the store or a folder.

    With a tag and a digest, a tag that names something else is refused. With DUET_TRUSTED_KEYS, so is a bundle that
    none of those keys signed. Credentials are those of `podman login` and `docker login`.
    """
    from dataclasses import replace

    from services.delivery.distribution import Repository
    from services.delivery.reference import parse
    from services.delivery.transfer import beside, place
    from services.delivery.transfer import pull as get
    from services.settings import read

    source = parse(reference)
    if not (source.tag or source.digest):
        source = replace(source, tag="latest")
    trusted = read().trusted_keys
    room = beside(into) if into else tempfile.TemporaryDirectory(prefix="duet-pull-")
    with room as scratch:
        with Repository(source, plain_http=plain_http) as repository, _progress() as begin:
            bundle, digest = get(repository, Path(scratch), begin)
        if trusted:
            from services.inference import keys, signature

            signature.check(bundle, keys.public_keys(trusted, "DUET_TRUSTED_KEYS"))
        if into:
            where = str(place(bundle, into, Path(scratch)))
        else:
            from services.inference import registry

            where = registry.store(bundle).tag
    say(f"pulled {bundle.name}:{bundle.version} from {replace(source, tag='', digest=digest)}")
    say(where)


def sign(
    model: Model,
    key: Annotated[Path, typer.Option(help="File with the private key: PEM, elliptic curve.")],
) -> None:
    """Sign a bundle in the format of OpenSSF's model signing.

    The signature is the file model.sig in the folder of the bundle. It covers every byte of the bundle.
    """
    from services.inference import keys, signature

    bundle = bundle_of(model)
    path = signature.sign(
        bundle, keys.private_key(key, lambda: str(typer.prompt(f"Password of {key}", hide_input=True, err=True)))
    )
    say(f"signed {bundle.name}:{bundle.version}: {path}")


def say(line: str) -> None:
    """Print a line as it is."""
    Console().print(escape(line), highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[Begin]:
    """A bar for each blob, on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def begin(name: str, size: int) -> Callable[[int], None]:
            task = bars.add_task(escape(name), total=size)
            return lambda count: bars.advance(task, count)

        yield begin
