from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from training.data import Dataset, download, load
from training.data.dataset import ROLES

DATA_DIR = os.environ.get("DUET_DATA_DIR")
needs_data = pytest.mark.skipif(not DATA_DIR, reason="DUET_DATA_DIR does not say where the MNIST files are")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def small(seed: int) -> dict[str, bytes]:
    """The four files of a set a thousand times smaller: 60 and 10 images of 28x28."""
    random = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": idx_bytes(random.integers(0, 256, (60, 28, 28), dtype=np.uint8)),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(60, dtype=np.uint8) % 10),
        "t10k-images-idx3-ubyte": idx_bytes(random.integers(0, 256, (10, 28, 28), dtype=np.uint8)),
        "t10k-labels-idx1-ubyte": idx_bytes(np.arange(10, dtype=np.uint8)),
    }


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """Two small sets, published as far as the content check can tell."""
    sets = {"mnist": small(0), "fashion-mnist": small(1)}
    sums = {
        name: {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        for name, contents in sets.items()
    }
    monkeypatch.setattr(download, "SHA256", sums)
    monkeypatch.delenv("DUET_DATA_DIR", raising=False)
    return sets


def write(folder: Path, contents: dict[str, bytes], compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        path = folder / (f"{file}.gz" if compressed else file)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_folder_by_argument_or_environment_with_files_in_it_or_below(
    files: dict[str, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    below: bool,
    compressed: bool,
) -> None:
    write(tmp_path / "mnist" if below else tmp_path, files["mnist"], compressed)
    if by == "environment":
        monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path))
        data = load("mnist")
    else:
        monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "not this"))
        data = load("mnist", folder=tmp_path)
    assert data.splits == {"train": 50, "validation": 5, "calibration": 5, "test": 10}
    # Test is the official one, in its order; the others are the official train images, each exactly once.
    assert data.test.images.tobytes() == files["mnist"]["t10k-images-idx3-ubyte"][16:]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == list(range(10))
    raw = np.frombuffer(files["mnist"]["train-images-idx3-ubyte"][16:], np.uint8).reshape(60, 1, 28, 28)
    place = {image.tobytes(): index for index, image in enumerate(raw)}
    fitted = [getattr(data, role) for role in ROLES[:3]]
    indices = [place[image.tobytes()] for split in fitted for image in split.images]
    assert sorted(indices) == list(range(60))
    assert [index % 10 for index in indices] == np.concatenate([split.labels for split in fitted]).tolist()


def test_fashion_mnist_files_do_not_pass_for_mnist(files: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    write(tmp_path, files["fashion-mnist"])
    assert load("fashion-mnist", folder=tmp_path).class_names[-1] == "Ankle boot"
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: uncompressed SHA-256 .* of mnist"):
        load("mnist", folder=tmp_path)


def test_missing_files_are_listed_with_the_remedy(files: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    write(tmp_path / "mnist", files["mnist"])
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"mnist: no t10k-labels-idx1-ubyte\.gz for mnist; .*--data-dir"):
        load("mnist", folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no train-images.*, train-labels.*, t10k-images.*, t10k-labels"):
        load("fashion-mnist", folder=tmp_path)


def test_damaged_file_is_named(files: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    damaged = write(tmp_path, files["mnist"]) / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: not readable as gzip"):
        load("mnist", folder=tmp_path)


def nearest_mean_accuracy(data: Dataset) -> float:
    """Accuracy on test of the nearest class mean of train, validation and calibration together."""
    fitted = [getattr(data, role) for role in ROLES[:3]]
    images = np.concatenate([split.images for split in fitted]).reshape(60_000, -1)
    labels = np.concatenate([split.labels for split in fitted])
    means = np.stack([images[labels == label].mean(axis=0) for label in range(10)])
    test = data.test.images.reshape(10_000, -1).astype(np.float64)
    distances = (means**2).sum(axis=1) - 2 * test @ means.T
    return float(np.mean(distances.argmin(axis=1) == data.test.labels))


@needs_data
@pytest.mark.parametrize(("name", "accuracy"), [("mnist", 0.8203), ("fashion-mnist", 0.6768)])
def test_the_real_files(name: str, accuracy: float) -> None:
    data = load(name)
    assert data.splits == {"train": 50_000, "validation": 5_000, "calibration": 5_000, "test": 10_000}
    assert data.image_shape == (1, 28, 28)
    assert len(data.class_names) == 10
    # No image occurs twice in these sets, so equal bytes in two splits would be one image in two roles.
    images = {image.tobytes() for role in ROLES for image in getattr(data, role).images}
    assert len(images) == 70_000
    assert nearest_mean_accuracy(data) == pytest.approx(accuracy, abs=5e-5)
    assert np.bincount(data.validation.labels).min() > 400  # type: ignore[arg-type]


@needs_data
def test_the_two_real_sets_have_digests_of_their_own() -> None:
    assert load("mnist").digest == load("mnist").digest != load("fashion-mnist").digest
