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

from services.inference.image_files import find
from services.inference.photograph import Invisible, opaque, upright, without_metadata
from training.data.copies import first_of_equal, flat, near_copies
from training.data.dataset import Dataset, Split
from training.data.names import of_folder
from training.data.splits import stratified

SHARES = (70, 10, 10, 10)
LEAST_PER_CLASS = 10  # so that every split has an image of every class
LEAST = 40
MOST_CLASSES = 1000
TRAINED = {"train", "training"}
HELD_OUT = {"val", "valid", "validation", "dev", "test", "testing"}
NAMED = 5  # most classes or files in a message
MANY = 500  # from this number of files on, a progress bar is shown

logger = logging.getLogger(__name__)


def load_folder(
    root: Path, *, image_size: int = 28, colour: bool = False, on_unreadable: Literal["refuse", "skip"] = "refuse"
) -> Dataset:
    """Every PNG and JPEG below `root`, at any depth, as uint8 [N,1 or 3,image_size,image_size].

    The sorted names of the sub-folders are the class names. `services.inference.image_files` says which files are
    images.

    Each class is split 70/10/10/10 in the order of the SHA-256 of the files' relative paths, so that adding or
    removing a file moves at most three others to another split. Images with the same pixels count once and are in one
    split. Near copies are told, but not moved: pictures of one kind of object may be as similar as copies.

    Args:
        root: the folder; its name becomes the name of the data set (`names.of_folder`).
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
    whole = Split(np.stack(images) if images else np.empty((0, 1, 1, 1), np.uint8), labels)
    equal = first_of_equal(whole.images)
    first = np.where(flat(whole.images), np.arange(len(equal)), equal)  # two black pictures are no copies
    _check_enough(root, class_names, labels, first)
    _check_different(root, whole, kept, equal, first)
    # Copies follow the first of them into its split: a test image must not be a training image.
    own = np.flatnonzero(first == np.arange(len(first)))
    parts = np.empty(len(first), np.int64)
    for part, chosen in enumerate(stratified(np.arange(len(own)), None if labels is None else labels[own], SHARES)):
        parts[own[chosen]] = part
    parts = parts[first]
    _tell_near_copies(root, whole.images[own], parts[own], [kept[index] for index in own])
    splits = (whole.take(np.flatnonzero(parts == part)) for part in range(len(SHARES)))
    return Dataset(of_folder(root.resolve().name), class_names, *splits)


def read_image(path: Path, size: int, colour: bool) -> NDArray[np.uint8]:
    """One PNG or JPEG, recognised by its content, as uint8 [1 or 3,size,size].

    It is rotated by its EXIF orientation; 16 bits are cut to the upper 8; palettes are resolved; transparent pixels are
    composed onto black. It is resized to a square with any aspect ratio (bilinear, antialiased), like the images of
    requests: a crop would cut off parts of the object, and a generator would learn the borders of padded images.

    Raises:
        ValueError: the file cannot be decoded, or has more pixels than Pillow's limit against decompression bombs.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not readable as PNG or JPEG (it is no file)")  # a pipe never ends
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
    found = find(root)
    for sentence in found.skipped():
        logger.warning("%s: %s", root, sentence)
    if found.other:
        passed = f"ignored {len(found.other)} files that are not .png, .jpg or .jpeg, such as {found.other[0]}"
        logger.warning("%s: %s", root, passed)
    # A broken link (data that were not fetched) is found too, and is then not readable.
    files = found.images + found.missing
    class_names = tuple(path.name for path in found.folders)
    _check_classes(root, class_names)
    loose = sorted(file for file in files if len(file.parts) == 1 and file.suffix)  # without: a class that is not there
    if class_names and loose:
        raise ValueError(
            f"folder:{root}: {len(loose)} images such as {loose[0]} are beside class folders ({_some(class_names)}); "
            "move every image into the sub-folder of its class, or all into one folder for data without labels"
        )
    return class_names, files


def _check_classes(root: Path, class_names: tuple[str, ...]) -> None:
    lower = {name.lower() for name in class_names}
    if lower & TRAINED and lower & HELD_OUT:
        raise ValueError(
            f"folder:{root}: the sub-folders {_some(class_names)} look like splits (train, val, test), not like "
            "classes; Duet splits the images itself, so put all images of a class into one sub-folder, whatever their "
            "split, or give one of these folders"
        )
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


def _check_enough(
    root: Path, class_names: tuple[str, ...], labels: NDArray[np.int64] | None, first: NDArray[np.int64]
) -> None:
    """Refuse a folder of which a split would have no image, or none of a class; copies of an image count once."""
    own = first == np.arange(len(first))
    once = "" if own.all() else " (copies count once)"
    if len(first) >= LEAST and not first.any():
        return  # all are one image, which has a message of its own
    if labels is not None:
        counts = np.bincount(labels[own], minlength=len(class_names))
        few = [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < LEAST_PER_CLASS]
        if few:
            raise ValueError(
                f"folder:{root}: fewer than {LEAST_PER_CLASS} readable images in {_some(few)}{once}; "
                "add images or remove the sub-folder"
            )
    if len(first) < LEAST:
        raise ValueError(f"folder:{root}: {len(first)} readable images, but at least {LEAST} are needed; add images")
    if own.sum() < LEAST_PER_CLASS:
        raise ValueError(
            f"folder:{root}: {own.sum()} different images, but at least {LEAST_PER_CLASS} are needed; add images"
        )


def _check_different(
    root: Path, whole: Split, files: Sequence[Path], equal: NDArray[np.int64], first: NDArray[np.int64]
) -> None:
    """Refuse a folder with only one distinct image, and warn of copies, and of images that are in two classes.

    Args:
        root: the folder.
        whole: all images.
        files: of each image.
        equal: index of the first image with the same pixels.
        first: index of the first of its copies.
    """
    images, labels = whole.images, whole.labels
    if not equal.any():
        raise ValueError(
            f"folder:{root}: all {len(images)} images have the same pixels"
            f"{' (black)' if not images[0].any() else ''}, so there is nothing to learn; look at {files[0]}"
        )
    contrary = np.flatnonzero(np.zeros(len(equal), bool) if labels is None else labels != labels[equal])
    copies = np.setdiff1d(np.flatnonzero(first != np.arange(len(first))), contrary)
    if len(copies):
        logger.warning(
            "%s: %d images are copies of others, such as %s of %s; copies are kept in one split",
            *(root, len(copies), files[copies[0]], files[first[copies[0]]]),
        )
    if len(contrary):
        logger.warning(
            "%s: %d images are in two classes, such as %s and %s; no classifier can be right on both",
            *(root, len(contrary), files[equal[contrary[0]]], files[contrary[0]]),
        )


def _tell_near_copies(root: Path, images: NDArray[np.uint8], parts: NDArray[np.int64], files: Sequence[Path]) -> None:
    if pairs := near_copies(images, parts):
        one, other = pairs[0]
        logger.warning(
            "%s: %d images of the validation, calibration and test splits are nearly equal to one of another split, "
            "such as %s and %s; if each pair is one picture that was saved twice, keep one of it: else metrics are too "
            "good, and p-values are wrong",
            *(root, len(pairs), files[one], files[other]),
        )


def _some(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
