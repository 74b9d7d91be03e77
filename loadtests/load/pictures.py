"""Pictures of the kind that a model was trained on: from a folder, drawn by a served generator, or patterns."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from loadtests.load.service import Model, NotAnswered, ask

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
COUNT = 256  # pictures that are drawn
LARGEST = 2**20  # bytes of a file that is sent as it is


@dataclass(frozen=True)
class Pictures:
    """Pictures that are sent.

    Attributes:
        files: PNG or JPEG files.
        labels: the class of each; None where it is not known.
        source: where they come from, for people.
    """

    files: list[bytes]
    labels: list[str | None]
    source: str

    def text(self, index: int) -> str:
        """A file in base64, as JSON has it."""
        return base64.b64encode(self.files[index]).decode()


def from_folder(folder: Path, count: int = 1000) -> Pictures:
    """The pictures of a folder; the folder that holds one is its label, if the pictures lie in subfolders.

    Raises:
        ValueError: the folder has no picture, or one cannot be decoded.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"--images {folder}: it has no file that ends in {', '.join(sorted(SUFFIXES))}")
    chosen = [paths[int(index)] for index in np.linspace(0, len(paths) - 1, min(count, len(paths)))]
    files = [_file(path) for path in chosen]
    labels = [None if path.parent == folder else path.parent.name for path in chosen]
    return Pictures(files, labels, f"{len(files)} of {len(paths)} pictures of {folder}")


def _file(path: Path) -> bytes:
    """The file itself, or a PNG of it where the service reads no such files or it is large."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if image.format in ("PNG", "JPEG") and len(content) <= LARGEST:
                image.verify()
                return content
            image.thumbnail((1024, 1024))
            return png(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's errors of broken files
        raise ValueError(f"--images: {path} cannot be decoded ({error}); remove it") from None


def drawn(host: str, generator: Model, shape: tuple[int, int, int]) -> Pictures:
    """Samples of a served generator; each has its class as label where the generator takes one.

    Raises:
        NotAnswered: the generator does not answer.
        ValueError: its images have another size than those of the model that will get them.
    """
    if generator.shape != shape:
        raise ValueError(f"{generator.name} draws images of {generator.shape}, and {shape} are needed")
    files: list[bytes] = []
    labels: list[str | None] = []
    classes: list[str | None] = list(generator.labels) or [None]
    each = -(-COUNT // len(classes))
    for label in classes:
        document = {"model": generator.name, "count": each, "seed": 1, "format": "png"}
        answer = ask(host, "/generate", document | ({"class": label} if label is not None else {}))
        try:
            files += [base64.b64decode(image) for image in answer["images"]]
        except (KeyError, TypeError, ValueError) as error:
            raise NotAnswered(f"{host}/generate: the answer has no PNG files ({error})") from None
        labels += [label] * each
    return Pictures(files, labels, f"{len(files)} samples of {generator.name}")


def patterns(shape: tuple[int, int, int]) -> Pictures:
    """Seeded smooth patterns, where nothing better is to be had; no model was trained on them."""
    generator = np.random.default_rng(0)
    channels, height, width = shape
    files = []
    for _ in range(COUNT):
        small = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        files.append(png(np.asarray(image).transpose(2, 0, 1)[:channels]))
    return Pictures(files, [None] * COUNT, f"{COUNT} patterns, unlike what the model was trained on")


def fresh(file: bytes, generator: np.random.Generator) -> bytes:
    """The picture with noise in its lowest bits, which was never sent before."""
    known = _decoded(file)
    return png(known ^ generator.integers(0, 2, known.shape, dtype=np.uint8), compress_level=1)


@lru_cache(maxsize=1024)
def _decoded(file: bytes) -> np.ndarray:
    """uint8 [C,H,W] of one or three channels."""
    with Image.open(io.BytesIO(file)) as image:
        grey = image.mode in ("L", "1", "I", "I;16")
        found = np.asarray(image.convert("L" if grey else "RGB"))
    return found[None] if grey else found.transpose(2, 0, 1)


def pixels(file: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as uint8 [C,H,W] of the model's size."""
    channels, height, width = shape
    with Image.open(io.BytesIO(file)) as image:
        sized = image.convert("L" if channels == 1 else "RGB").resize((width, height))
    found = np.asarray(sized)
    return found[None] if channels == 1 else found.transpose(2, 0, 1)


def png(image: np.ndarray, compress_level: int = 6) -> bytes:
    """uint8 [C,H,W] of one or three channels as a PNG file; a low level of compression is faster."""
    stream = io.BytesIO()
    lines = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(lines).save(stream, "PNG", compress_level=compress_level)
    return stream.getvalue()
