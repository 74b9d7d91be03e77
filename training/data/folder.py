"""Images of one's own: a folder with a sub-folder for each class, or without sub-folders and so without labels."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from training.data.dataset import Dataset, Split
from training.data.splits import stratified

EXTENSIONS = {".png", ".jpg", ".jpeg"}
SHARES = (70, 10, 10, 10)
LEAST_PER_CLASS = 10  # one image of every class in every split
LEAST = 40
MOST_CLASSES = 1000
NAMED = 5  # classes or files that a message lists
MANY = 500  # files from which a progress bar is worth while

logger = logging.getLogger(__name__)


def load_folder(
    root: Path, *, image_size: int = 28, colour: bool = False, on_unreadable: Literal["refuse", "skip"] = "refuse"
) -> Dataset:
    """Every PNG and JPEG below `root`, at any depth, as uint8 [N,1 or 3,image_size,image_size].

    The sorted names of the sub-folders are the class names. Names that start with a dot are passed over.

    Each class is split 70/10/10/10 in the order of the SHA-256 of the files' relative paths, so that a file more or
    less moves at most three others to another split.

    Args:
        root: the folder; its own name becomes the data set's.
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
    # By name, not by place in the listing: a new file must not reshuffle the others.
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
                raise ValueError(f"{error}; repair or delete it, or pass over such with --skip-unreadable") from error
            logger.warning("skipped %s", error)
    index = {name: label for label, name in enumerate(class_names)}
    labels = np.array([index[file.parts[0]] for file in kept], np.int64) if class_names else None
    _check_enough(root, class_names, labels, len(kept))
    _check_different(root, images, kept, labels)
    whole = Split(np.stack(images), labels)
    parts = stratified(np.arange(len(whole)), labels, SHARES)
    return Dataset(root.resolve().name, class_names, *(whole.take(part) for part in parts))


def read_image(path: Path, size: int, colour: bool) -> NDArray[np.uint8]:
    """One PNG or JPEG, told by its content, as uint8 [1 or 3,size,size].

    Turned as its EXIF orientation says; 16 bits cut to the upper 8; palettes resolved; transparency laid over black.
    Resized to the square whatever the aspect ratio (bilinear, antialiased), as the services resize what they are
    sent: a crop would cut parts of the object away, and a generator would learn to draw the borders of a padded image.

    Raises:
        ValueError: the file cannot be decoded, or has more pixels than Pillow's limit against decompression bombs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                image = ImageOps.exif_transpose(opened)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything, struct.error included
        reason = "its content is neither" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path}: not readable as PNG or JPEG ({reason})") from error
    if image.mode.startswith("I"):  # 16-bit grey, which convert("L") would clip at 255
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    image = image.convert("RGB" if colour else "L")
    pixels = np.atleast_3d(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _find(root: Path) -> tuple[tuple[str, ...], list[Path]]:
    """The class names, and the image files relative to `root`."""
    # A link that leads nowhere (data that were not fetched) is found too, and then not readable.
    found = [path for path in root.rglob("*") if path.is_file() or (path.is_symlink() and not path.exists())]
    visible = [path for path in (path.relative_to(root) for path in found) if not _hidden(path)]
    files = [path for path in visible if path.suffix.lower() in EXTENSIONS]
    if len(files) < len(visible):
        other = min(path for path in visible if path.suffix.lower() not in EXTENSIONS)
        passed = len(visible) - len(files)
        logger.warning("%s: passed over %d files that are not .png, .jpg or .jpeg, such as %s", root, passed, other)
    class_names = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not _hidden(Path(path.name))))
    _check_classes(root, class_names)
    loose = sorted(file for file in files if len(file.parts) == 1)
    if class_names and loose:
        raise ValueError(
            f"folder:{root}: {len(loose)} images such as {loose[0]} lie beside the classes ({_some(class_names)}); "
            "move every image into the sub-folder of its class, or all into one folder for data without labels"
        )
    return class_names, files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _check_classes(root: Path, class_names: tuple[str, ...]) -> None:
    if len(class_names) == 1:
        raise ValueError(
            f"folder:{root}: one class, {class_names[0]}, and nothing to tell it from; add a sub-folder for each other "
            f"class, or give folder:{root / class_names[0]} for data without labels"
        )
    if len(class_names) > MOST_CLASSES:
        raise ValueError(
            f"folder:{root}: {len(class_names):,} sub-folders ({_some(class_names)}), but at most {MOST_CLASSES:,} "
            "classes are learned; if they are no classes, move all images into one folder for data without labels"
        )
    for name in (root.resolve().name, *class_names):
        if not name.isprintable():  # nor are bytes that are not UTF-8, which neither JSON nor the services could say
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
        raise ValueError(f"folder:{root}: {total} readable images, but at least {LEAST} are wanted; add images")


def _check_different(
    root: Path, images: Sequence[NDArray[np.uint8]], files: Sequence[Path], labels: NDArray[np.int64] | None
) -> None:
    """Refuse a folder with one image over and over, and warn of images that lie in two classes."""
    first: dict[bytes, int] = {}
    contrary = []
    for index, image in enumerate(images):
        other = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
        if labels is not None and labels[other] != labels[index]:
            contrary.append((files[other], files[index]))
    if len(first) == 1:
        raise ValueError(
            f"folder:{root}: all {len(images)} images are the same, pixel for pixel"
            f"{' (black)' if not images[0].any() else ''}, so there is nothing to learn; look at {files[0]}"
        )
    if contrary:
        logger.warning(
            "%s: %d images lie in two classes, such as %s and %s; no classifier can be right on both",
            *(root, len(contrary), *contrary[0]),
        )


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
