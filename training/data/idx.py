"""IDX, the file format of MNIST: a magic number, the dimensions, then the bytes, plain or in gzip.

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08
REMEDY = "the file is damaged or is not an IDX file: copy or download it again"


def decompress(content: bytes, source: Path | str) -> bytes:
    """`content`, unpacked if it is gzip, independent of the file's name; `source` is for the messages.

    Raises:
        ValueError: the gzip stream is cut off or damaged.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{source}: not readable as gzip ({error}); {REMEDY}") from None


def parse(content: bytes, path: Path) -> NDArray[np.uint8]:
    """The array in the uncompressed `content` of an IDX file; `path` is for the messages.

    Header, big-endian: two zero bytes, the type (0x08 = uint8, the only one read here), the number of dimensions D,
    then D sizes of 32 bits.

    Raises:
        ValueError: the magic number, the type or the length is wrong.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise ValueError(f"{path}: starts with 0x{content[:4].hex()}, which is not an IDX magic number; {REMEDY}")
    if content[2] != UINT8:
        raise ValueError(f"{path}: IDX type 0x{content[2]:02x}, but only 0x08 (uint8) is read here; convert the file")
    dimensions = content[3]
    offset = 4 + 4 * dimensions
    if len(content) < offset:
        raise ValueError(f"{path}: {len(content)} bytes, too short for {dimensions} dimensions; {REMEDY}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    if len(content) != offset + math.prod(shape):
        raise ValueError(
            f"{path}: {len(content)} bytes, but the header's shape {shape} needs {offset + math.prod(shape)}; {REMEDY}"
        )
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape).copy()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, gzip or plain.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged or not an IDX file of uint8; the message names the file and the remedy.
    """
    return parse(decompress(path.read_bytes(), path), path)
