from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.idx import parse, read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads_plain_and_gzip_whatever_the_name(tmp_path: Path, name: str, compressed: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)) if compressed else idx_bytes(IMAGES))
    array = read_idx(path)
    assert array.dtype == np.uint8
    assert array.flags.writeable  # torch.from_numpy wants it so
    assert np.array_equal(array, IMAGES)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_shape_comes_back(shape: list[int], random: object) -> None:
    data = random.randbytes(math.prod(shape))  # type: ignore[attr-defined]
    array = np.frombuffer(data, np.uint8).reshape(shape)
    assert np.array_equal(parse(idx_bytes(array), Path("x")), array)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_array_or_a_value_error(content: bytes) -> None:
    try:
        array = parse(content, Path("some-file"))
    except ValueError as error:
        assert str(error).startswith("some-file: ")  # noqa: PT017
    else:
        assert idx_bytes(array) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0x, which is not an IDX magic number"),
        (b"<!DOCTYPE html>", "0x3c21444f, which is not an IDX magic number"),
        (b"\0\0\x08\0", "0x00000800, which is not an IDX magic number"),
        (b"\0\0\x0d\x01\0\0\0\0", "IDX type 0x0d, but only 0x08"),
        (b"\0\0\x08\x03\0\0", "6 bytes, too short for 3 dimensions"),
        (idx_bytes(IMAGES)[:-1], r"75 bytes, but the header's shape \(3, 4, 5\) needs 76"),
        (idx_bytes(IMAGES) + b"\0", "77 bytes, but the header's shape"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "20 bytes, but the header's shape"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-20], "not readable as gzip"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-8] + b"\0" * 8, "not readable as gzip .CRC"),
        (b"\x1f\x8bnot gzip at all", "not readable as gzip"),
    ],
)
def test_damage_is_named_with_file_and_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "again" in str(caught.value) or "convert" in str(caught.value)


def test_every_cut_of_a_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(idx_bytes(IMAGES))
    path = tmp_path / "cut.gz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.gz: "):
            read_idx(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
