"""MNIST and Fashion-MNIST: two sets of 70,000 grey 28x28 images in 10 classes, in the same four files.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul, R. Vollgraf,
"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", arXiv:1708.07747.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import download, idx
from training.data.dataset import Dataset, Split
from training.data.splits import permutation

CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}


def load_mnist(name: str, folder: Path | None = None) -> Dataset:
    """`mnist` or `fashion-mnist`: the official 60,000 as 50,000 train, 5,000 validation and 5,000 calibration, by one
    fixed permutation; the official 10,000 as test.

    Args:
        name: a key of `CLASS_NAMES`.
        folder: has the four IDX files, gzip or plain, directly or in a sub-folder `name`; by default DUET_DATA_DIR of
            the environment. Without both, the files are downloaded once into the cache.

    Raises:
        FileNotFoundError: the folder does not have the files.
        ValueError: a file's content is not the published one.
        download.DownloadError: no mirror gave the files.
    """
    root = folder or os.environ.get("DUET_DATA_DIR") or download.fetch(name)
    arrays = {file: _read(name, file, path) for file, path in _find(name, Path(root).expanduser()).items()}
    official, test = (
        Split(arrays[f"{half}-images-idx3-ubyte"][:, None], arrays[f"{half}-labels-idx1-ubyte"].astype(np.int64))
        for half in ("train", "t10k")
    )
    order = permutation(len(official))
    train, validation, calibration = np.split(order, [len(order) * 10 // 12, len(order) * 11 // 12])
    return Dataset(
        name, CLASS_NAMES[name], official.take(train), official.take(validation), official.take(calibration), test
    )


def _find(name: str, root: Path) -> dict[str, Path]:
    """The four files of `name`, in `root/name` if there is such a folder, else in `root`.

    Raises:
        FileNotFoundError: listing the files that are missing there.
    """
    home = root / name if (root / name).is_dir() else root
    paths = {file: home / file for file in download.SHA256[name]}
    paths = {file: path.with_name(f"{file}.gz") if not path.is_file() else path for file, path in paths.items()}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{home}: no {', '.join(missing)} for {name}; give the folder with the four files, gzip or plain, by "
            "--data-dir or DUET_DATA_DIR, or give neither, and they are downloaded"
        )
    return paths


def _read(name: str, file: str, path: Path) -> NDArray[np.uint8]:
    content = idx.decompress(path.read_bytes(), path)
    array = idx.parse(content, path)
    # The two sets have the same file names and shapes; only the content differs.
    actual, expected = hashlib.sha256(content).hexdigest(), download.SHA256[name][file]
    if actual != expected:
        raise ValueError(
            f"{path}: uncompressed SHA-256 {actual[:12]}… instead of {expected[:12]}…, so it is not the published file "
            f"of {name}; replace it, or delete it from the cache, or use folder:PATH for your own images"
        )
    return array
