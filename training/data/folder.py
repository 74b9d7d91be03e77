"""Own images: a folder with a sub-folder for each class, or without sub-folders and so without labels."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from services.inference.photograph import Invisible, opaque, upright, without_metadata
from training.data.dataset import Dataset, Split
from training.data.splits import stratified

EXTENSIONS = {".png", ".jpg", ".jpeg"}
SHARES = (70, 10, 10, 10)
LEAST_PER_CLASS = 10  # so that every split has an image of every class
LEAST = 40
MOST_CLASSES = 1000
NAMED = 5  # most classes or files in a message
MANY = 500  # from this number of files on, a progress bar is shown

logger = logging.getLogger(__name__)


def load_folder(
    root: Path, *, image_size: int = 28, colour: bool = False, on_unreadable: Literal["refuse", "skip"] = "refuse"
) -> Dataset:
    """Every PNG and JPEG below `root`, at any depth, as uint8 [N,1 or 3,image_size,image_size].

    The sorted names of the sub-folders are the class names. Names that start with a dot are ignored.

    Each class is split 70/10/10/10 in the order of the SHA-256 of the files' relative paths, so that adding or
    removing a file moves at most three others to another split.

    Args:
        root: the folder; its name becomes the name of the data set.
        image_size: height and width, pixels.
        colour: RGB instead of grey (ITU-R 601 luma).
        on_unreadable: `refuse` the folder for a file that cannot be decoded, or `skip` the file with a warning.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: images lie both beside and in sub-folders, are too few or all alike, or cannot be decoded; or there
            is one class, or too many.
    """
    if image_size < 1:
        raise ValueError(f"image_size {image_size}: give the height and width in pixels, at least 1")
    if not root.is_dir():
        raise FileNotFoundError(f"folder:{root}: no such folder; give one with PNG or JPEG images")
    class_names, files = _find(root)
    # By name, not by position in the listing: a new file must not reshuffle the others.
    files.sort(key=lambda file: hashlib.sha256(os.fsencode(file.as_posix())).digest())
    images, kept = [], []
    console = Console(stderr=True)
    hidden = len(files) < MANY or not console.is_terminal
    for file in track(files, f"Reading {root.name}", console=console, transient=True, disable=hidden):
        try:
            images.append(read_image(root / file, image_size, colour))
            kept.append(file)
        except ValueError as error:
            if on_unreadable == "refuse":
                raise ValueError(f"{error}; repair or delete it, or skip such files by --skip-unreadable") from error
            logger.warning("skipped %s", error)
    index = {name: label for label, name in enumerate(class_names)}
    labels = np.array([index[file.parts[0]] for file in kept], np.int64) if class_names else None
    _check_enough(root, class_names, labels, len(kept))
    _check_different(root, images, kept, labels)
    whole = Split(np.stack(images), labels)
    parts = stratified(np.arange(len(whole)), labels, SHARES)
    return Dataset(root.resolve().name, class_names, *(whole.take(part) for part in parts))


def read_image(path: Path, size: int, colour: bool) -> NDArray[np.uint8]:
    """One PNG or JPEG, recognised by its content, as uint8 [1 or 3,size,size].

    It is rotated by its EXIF orientation; 16 bits are cut to the upper 8; palettes are resolved; transparent pixels are
    composed onto black. It is resized to a square with any aspect ratio (bilinear, antialiased), like the images of
    requests: a crop would cut off parts of the object, and a generator would learn the borders of padded images.

    Raises:
        ValueError: the file cannot be decoded, or has more pixels than Pillow's limit against decompression bombs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = io.BytesIO(without_metadata(path.read_bytes()))
            with Image.open(content, formats=("PNG", "JPEG")) as opened:
                image = opaque(upright(opened))
    except Invisible as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # for damaged files Pillow raises many types, also struct.error
        reason = "its content is neither" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path}: not readable as PNG or JPEG ({reason})") from error
    image = image.convert("RGB" if colour else "L")
    pixels = np.atleast_3d(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _find(root: Path) -> tuple[tuple[str, ...], list[Path]]:
    """The class names, and the image files relative to `root`."""
    # A broken link (data that were not fetched) is found too, and is then not readable.
    found = [path for path in root.rglob("*") if path.is_file() or (path.is_symlink() and not path.exists())]
    visible = [path for path in (path.relative_to(root) for path in found) if not _hidden(path)]
    files = [path for path in visible if path.suffix.lower() in EXTENSIONS]
    if len(files) < len(visible):
        other = min(path for path in visible if path.suffix.lower() not in EXTENSIONS)
        passed = len(visible) - len(files)
        logger.warning("%s: ignored %d files that are not .png, .jpg or .jpeg, such as %s", root, passed, other)
    class_names = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not _hidden(Path(path.name))))
    _check_classes(root, class_names)
    loose = sorted(file for file in files if len(file.parts) == 1)
    if class_names and loose:
        raise ValueError(
            f"folder:{root}: {len(loose)} images such as {loose[0]} are beside class folders ({_some(class_names)}); "
            "move every image into the sub-folder of its class, or all into one folder for data without labels"
        )
    return class_names, files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_classes(root: Path, class_names: tuple[str, ...]) -> None:
    if len(class_names) == 1:
        raise ValueError(
            f"folder:{root}: there is only one class, {class_names[0]}, and a classifier needs two; add a sub-folder "
            f"for each other class, or give folder:{root / class_names[0]} for data without labels"
        )
    if len(class_names) > MOST_CLASSES:
        raise ValueError(
            f"folder:{root}: {len(class_names):,} sub-folders ({_some(class_names)}), but at most {MOST_CLASSES:,} "
            "classes are allowed; if they are not classes, move all images into one folder for data without labels"
        )
    for name in (root.resolve().name, *class_names):
        if not name.isprintable():  # bytes that are not UTF-8 are not printable either; JSON cannot hold them
            raise ValueError(f"folder:{root}: the folder name {name!r} is not printable text; rename the folder")


def _check_enough(root: Path, class_names: tuple[str, ...], labels: NDArray[np.int64] | None, total: int) -> None:
    if labels is not None:
        counts = np.bincount(labels, minlength=len(class_names))
        few = [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < LEAST_PER_CLASS]
        if few:
            raise ValueError(
                f"folder:{root}: fewer than {LEAST_PER_CLASS} readable images in {_some(few)}; "
                "add images or remove the sub-folder"
            )
    if total < LEAST:
        raise ValueError(f"folder:{root}: {total} readable images, but at least {LEAST} are needed; add images")


def _check_different(
    root: Path, images: Sequence[NDArray[np.uint8]], files: Sequence[Path], labels: NDArray[np.int64] | None
) -> None:
    """Refuse a folder with only one distinct image, and warn of images that are in two classes."""
    first: dict[bytes, int] = {}
    contrary = []
    for index, image in enumerate(images):
        other = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
        if labels is not None and labels[other] != labels[index]:
            contrary.append((files[other], files[index]))
    if len(first) == 1:
        raise ValueError(
            f"folder:{root}: all {len(images)} images have the same pixels"
            f"{' (black)' if not images[0].any() else ''}, so there is nothing to learn; look at {files[0]}"
        )
    if contrary:
        logger.warning(
            "%s: %d images are in two classes, such as %s and %s; no classifier can be right on both",
            *(root, len(contrary), *contrary[0]),
        )


def _some(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
