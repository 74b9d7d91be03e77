"""The data that models are trained on, as uint8 arrays in four fixed splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from training.data.dataset import Dataset, Split
from training.data.digits import load_digits
from training.data.folder import load_folder
from training.data.mnist import CLASS_NAMES, load_mnist

__all__ = ["Dataset", "Split", "load"]


def load(
    spec: str,
    *,
    folder: Path | None = None,
    image_size: int = 28,
    colour: bool = False,
    on_unreadable: Literal["refuse", "skip"] = "refuse",
) -> Dataset:
    """The data set that `spec` names: `digits`, `mnist`, `fashion-mnist` or `folder:PATH`.

    Args:
        spec: the data set.
        folder: where the files of mnist and fashion-mnist lie (see `load_mnist`).
        image_size: height and width, pixels; only for folder:PATH, the others are 28x28.
        colour: RGB instead of grey; only for folder:PATH, the others are grey.
        on_unreadable: for folder:PATH, `refuse` or `skip` a file that cannot be decoded.

    Raises:
        ValueError: the spec is unknown, it does not allow an argument, or the data are damaged or too few.
        OSError: files are missing or cannot be read, written or downloaded.
    """
    kind, _, path = spec.partition(":")
    if kind == "folder" and path:
        return load_folder(Path(path).expanduser(), image_size=image_size, colour=colour, on_unreadable=on_unreadable)
    if spec != "digits" and spec not in CLASS_NAMES:
        raise ValueError(f"data set {spec!r} is unknown; give digits, {', '.join(CLASS_NAMES)} or folder:PATH")
    if image_size != 28 or colour:
        raise ValueError(
            f"image_size {image_size}, colour {colour}: {spec} is grey and 28x28; leave both out, or use folder:PATH"
        )
    return load_digits() if spec == "digits" else load_mnist(spec, folder)
