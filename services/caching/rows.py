"""The items of a batch as bytes, for keys and for values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def item_rows(arrays: Sequence[np.ndarray], count: int) -> list[bytes]:
    """For each of the `count` items of arrays [N, ...]: the bytes of its row in every array, in C order."""
    contents = [array.tobytes() for array in arrays]  # C order whatever the array's own order is
    if count == 1:
        return [b"".join(contents)]
    columns = []
    for content in contents:
        size = len(content) // count
        columns.append([content[row * size : row * size + size] for row in range(count)])
    return columns[0] if len(columns) == 1 else list(map(b"".join, zip(*columns, strict=True)))
