"""MNIST and Fashion-MNIST from the usual mirrors into a cache folder, checked by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from training.data import idx

# Sums of the uncompressed files, because mirrors compress differently. The files have the MD5 sums that the authors
# publish.
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
}
TIMEOUT = httpx.Timeout(30, connect=10)  # seconds, for each connection and each read


class DownloadError(OSError):
    """No mirror has a file; the message gives the answer of each mirror, and the remedy."""


def fetch(name: str) -> Path:
    """The cache folder with the four files of `name`, gzip-compressed; downloads those that are not there yet.

    The cache is `DUET_CACHE_DIR`, by default `duet` in the user's cache directory. `DUET_DATA_MIRROR` replaces the
    mirrors: a base URL with `mnist/` and `fashion-mnist/` below it. A file is moved into the cache only when it is
    complete and checked.

    Raises:
        DownloadError: no mirror gave a file with the published content.
        OSError: the cache folder cannot be written.
    """
    home = cache_directory() / name
    home.mkdir(parents=True, exist_ok=True)
    own = os.environ.get("DUET_DATA_MIRROR")
    mirrors = (f"{own.rstrip('/')}/{name}",) if own else MIRRORS[name]
    missing = [file for file in SHA256[name] if not (home / f"{file}.gz").exists()]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        for file in missing:
            failures = []
            for mirror in mirrors:
                try:
                    _download(client, f"{mirror}/{file}.gz", SHA256[name][file], home / f"{file}.gz", progress)
                    break
                except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                    failures.append(f"{mirror}/{file}.gz: {error or type(error).__name__}")
            else:
                raise DownloadError(
                    f"{name}: no mirror gave {file}.gz ({'; '.join(failures)}). Give a folder with the four files by "
                    "--data-dir or DUET_DATA_DIR, or another mirror by DUET_DATA_MIRROR: a base URL with "
                    f"{name}/{file}.gz below it"
                )
    return home


def cache_directory() -> Path:
    """Where downloads are kept."""
    if own := os.environ.get("DUET_CACHE_DIR"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duet"


def _download(client: httpx.Client, url: str, sha256: str, target: Path, progress: Progress) -> None:
    """Stream `url` into a temporary file beside `target`; if its content is the expected one, rename it to `target`."""
    task = progress.add_task(f"{target.parent.name}/{target.name}", total=None)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with part.open("wb") as stream, client.stream("GET", url) as response:
            response.raise_for_status()
            length = response.headers.get("Content-Length")
            progress.update(task, total=int(length) if length else None)
            # Raw, because httpx would unpack the file if the server declares it as gzip-encoded.
            for chunk in response.iter_raw():
                stream.write(chunk)
                progress.advance(task, len(chunk))
        came = f"received {part.stat().st_size} bytes of {response.headers.get('Content-Type', 'no type')}"
        actual = hashlib.sha256(idx.decompress(part.read_bytes(), came)).hexdigest()
        if actual != sha256:
            raise ValueError(f"{came}: uncompressed SHA-256 {actual[:12]}… instead of {sha256[:12]}…")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
        progress.remove_task(task)
