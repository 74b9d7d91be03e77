"""`duet models`: what is in the store, and whether it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.commands import deliver
from services.commands.examples import examples
from services.commands.stop import Commands

if TYPE_CHECKING:
    from services.inference.keys import PublicKeys
    from services.inference.registry import Entry
    from services.settings import Settings

# `duet --help` does without BentoML's store: each command imports it when it runs.
# ruff: noqa: PLC0415

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="List, inspect, verify, sign, copy and delete the bundles in the model store.",
    epilog=examples("duet models list", "duet models show digits-cnn"),
)

Model = Annotated[str, typer.Argument(help="NAME (its newest version) or NAME:VERSION, as `duet models list` shows.")]


@app.command("list", epilog=examples("duet models list", "BENTOML_HOME=elsewhere duet models list"))
def list_models() -> None:
    """List every bundle in the store, the newest first.

    The store is the folder `models` in BENTOML_HOME (by default ~/bentoml). With DUET_BUNDLES, its bundles are listed.
    """
    from services.inference import folder
    from services.inference.bundle import BundleError, load
    from services.inference.store import reading
    from services.settings import read

    table = Table("model", "version", "task", "dataset", "recipe", "bytes")
    with reading():
        for entry in folder.available(read()):
            row = [entry.name, entry.version, entry.task]
            try:
                manifest = load(entry.path).manifest
            except BundleError:
                table.add_row(*row, "[red]does not verify[/]", "", "")
                continue
            size = sum(file.bytes for name, file in manifest.files.items() if name.endswith(".onnx"))
            table.add_row(*row, escape(manifest.dataset.name), escape(manifest.recipe), f"{size:,}")
    if table.row_count:
        Console().print(table)
    else:
        Console().print("The store is empty. `duet train --dataset digits --recipe demo` fills it in about a minute.")


@app.command(epilog=examples("duet models show digits-cnn", "duet models show digits-scorer:latest"))
def show(model: deliver.Model) -> None:
    """Show a bundle's manifest: data, graphs with their parity, metrics, gates, digest."""
    bundle = deliver.bundle_of(model)
    manifest = bundle.manifest
    Console().print(f"[bold]{bundle.name}:{bundle.version}[/]  {manifest.task}", highlight=False)
    splits = ", ".join(f"{count:,} {name}" for name, count in manifest.dataset.splits.items())
    Console().print(
        f"data      {escape(manifest.dataset.name)} ({escape(splits)}), digest {manifest.dataset.digest[:12]}",
        highlight=False,
    )
    Console().print(
        f"recipe    {escape(manifest.recipe)}, network {escape(manifest.network)}, seed {manifest.seed}",
        highlight=False,
    )
    Console().print(f"images    {' x '.join(map(str, manifest.image.shape))} (C x H x W), uint8", highlight=False)
    Console().print(f"digest    {bundle.digest}", highlight=False, soft_wrap=True)
    Console().print(f"path      {escape(str(bundle.path))}", highlight=False, soft_wrap=True)
    graphs = Table("graph", "inputs", "outputs", "bytes", "parity", "bound")
    for name, graph in manifest.graphs.items():
        graphs.add_row(
            name,
            ", ".join(tensor.name for tensor in graph.inputs),
            ", ".join(tensor.name for tensor in graph.outputs),
            f"{manifest.files[graph.file].bytes:,}",
            f"{graph.parity.max_abs_diff:.2g}",
            f"{graph.parity.bound:.2g}",
        )
    metrics = Table("metric", "value", "gate")
    gates = {
        gate.metric: f"{gate.direction} {gate.bound:g}, is {gate.value:.6g} on {gate.split}" for gate in manifest.gates
    }
    for name, value in manifest.metrics.items():
        metrics.add_row(escape(name), f"{value:.6g}", gates.get(name, ""))
    Console().print(graphs, metrics)


@app.command(epilog=examples("duet models verify", "duet models verify digits-gan"))
def verify(
    model: Annotated[
        str | None,
        typer.Argument(help="NAME or NAME:VERSION; with a slash, the folder of a bundle. Default: every bundle."),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="Public key, or folder of keys, one of which must have signed. Default: DUET_TRUSTED_KEYS."),
    ] = None,
) -> None:
    """Check the digest of bundles, the SHA-256 of their files, and with keys their signatures.

    The exit status is 1 if one does not match.
    """
    from services.inference.bundle import BundleError
    from services.inference.store import reading
    from services.settings import read

    failed = False
    settings = read()
    with reading():
        entries, keys = _to_verify(model, settings), _trusted(key, settings)
        for entry in entries:
            try:
                line = f"[green]ok[/]      {entry.tag}, {_verified(entry, keys)}"
            except BundleError as error:
                failed = True
                line = f"[red]FAILED[/]  {entry.tag}: {escape(str(error))}"
            Console().print(line, soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(1)


def _to_verify(model: str | None, settings: Settings) -> list[Entry]:
    """Bundles of the store, of DUET_BUNDLES or of a folder that is named.

    Raises:
        BundleError: there is none.
    """
    from services.inference import folder, registry
    from services.inference.bundle import BundleError

    if model and deliver.is_folder(model):
        return folder.entries(Path(model))
    available = folder.available(settings)
    if model:
        return [registry.find(model, available, folder.place(settings))]
    if not available:
        raise BundleError("the store is empty: there is nothing to verify; `duet train` fills it")
    return available


def _trusted(key: list[Path] | None, settings: Settings) -> PublicKeys:
    """The keys one of which must have signed; none: signatures are not looked at.

    Raises:
        BundleError: a key cannot be read.
    """
    where, field = (",".join(map(str, key)), "--key") if key else (settings.trusted_keys, "DUET_TRUSTED_KEYS")
    if not where:
        return {}
    from services.inference.keys import public_keys

    return public_keys(where, field)


def _verified(entry: Entry, trusted: PublicKeys) -> str:
    """What was verified, in words; the signature too where keys are trusted.

    Raises:
        BundleError: it does not verify, or none of the keys signed it.
    """
    from services.inference import registry

    bundle = registry.verified(entry)
    files = f"{len(bundle.manifest.files)} files"
    if not trusted:
        return files
    from services.inference import signature

    return escape(f"{files}, signed by {signature.check(bundle, trusted)}")


@app.command(
    epilog=examples(
        "duet models export digits-cnn digits-cnn.tar.gz",
        "duet models export digits-vae:latest digits-vae.tar.gz",
    )
)
def export(
    model: Model,
    archive: Annotated[Path, typer.Argument(help="File to write, NAME.tar.gz.")],
) -> None:
    """Verify a bundle and write it to one file, which `duet models import` reads."""
    from services.inference import registry
    from services.inference.bundle import BundleError

    if not archive.name.endswith(".tar.gz"):
        raise BundleError(f"{archive}: the name of the archive must end in .tar.gz; give another name")
    Console().print(f"wrote {escape(str(registry.export_archive(model, archive)))}", highlight=False, soft_wrap=True)


@app.command(
    "import",
    epilog=examples(
        "duet models import digits-cnn.tar.gz", "duet models import runs/digits-demo-0/cnn/bundles/digits-cnn"
    ),
)
def import_model(
    source: Annotated[
        Path, typer.Argument(exists=True, help="A .tar.gz file of `duet models export`, or a bundle's folder.")
    ],
) -> None:
    """Verify a bundle and put it into the store."""
    from services.inference import registry

    Console().print(f"stored {registry.import_archive(source).tag}", highlight=False)


app.command(
    epilog=examples(
        "duet models sign digits-cnn --key private.pem", "duet models sign ./bundles/digits-cnn --key private.pem"
    )
)(deliver.sign)
app.command(
    epilog=examples(
        "duet models push digits-cnn oci://registry.example/models/digits-cnn",
        "duet models push digits-gan oci://registry.example/models/digits-gan:stable",
    )
)(deliver.push)
app.command(
    epilog=examples(
        "duet models pull oci://registry.example/models/digits-gan:stable",
        "duet models pull oci://registry.example/models/digits-gan:stable --into bundles",
    )
)(deliver.pull)


@app.command(epilog=examples("duet models delete digits-vae", "duet models delete digits-gan --yes"))
def delete(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without a question.")] = False,
) -> None:
    """Remove one version from the store."""
    from services.inference import registry

    entry = registry.find(model)
    if not yes:
        typer.confirm(f"Delete {entry.tag}?", abort=True)
    Console().print(f"deleted {registry.delete(model).tag}", highlight=False)
