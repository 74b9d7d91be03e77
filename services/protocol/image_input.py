"""Images of a request as one validated batch, and the shape and number that they may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.inference.model import Model
from services.protocol.images import ImageFile, decode, open_image
from services.scheduling.offload import INLINE_PIXELS
from services.served import Served
from services.tasks.limits import check_count


async def read_images(
    values: Sequence[object], served: Served[Model], plane: DataPlane, call: Call, field: str = "images"
) -> np.ndarray:
    """A request's images as one batch uint8 [N,C,H,W] of the model's shape, wholly validated.

    The setting `image_pixels` bounds all files of one request together. Many pixels are decoded off the event loop, one
    request at a time, so that they do not delay other requests and need little memory.

    Raises:
        InvalidInput, TooLarge: naming the image, `images[3]`.
    """
    check_count(len(values), field, plane.settings.request_items)
    shape = served.model.bundle.manifest.image.shape
    with call.stage("decode"):
        size = sum(map(_size, values))
        if size <= INLINE_PIXELS:
            opened, pixels = _opened(values, shape, field, plane.settings.image_pixels)
            return await plane.offload.run_if_large(lambda: _decoded(opened, shape), call, pixels, INLINE_PIXELS)
        return await plane.offload.run(
            lambda: _decoded(_opened(values, shape, field, plane.settings.image_pixels)[0], shape), call
        )


def _size(value: object) -> int:
    """About the number of pixels or bytes that opening an image touches."""
    if type(value) is list:
        first = value[0] if value else None
        return len(value) * (len(first) if type(first) is list else 1)
    return len(value) if isinstance(value, str | bytes) else 0


def _opened(
    values: Sequence[object], shape: tuple[int, int, int], field: str, left: int
) -> tuple[list[ImageFile | np.ndarray], int]:
    """The images, files not yet decoded, and how many pixels the files have; at most `left` are allowed."""
    opened: list[ImageFile | np.ndarray] = []
    pixels = 0
    for i, value in enumerate(values):
        image = open_image(value, shape, f"{field}[{i}]", max_pixels=left - pixels)
        pixels += image.pixels if isinstance(image, ImageFile) else 0
        opened.append(image)
    return opened, pixels


def _decoded(opened: Sequence[ImageFile | np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    arrays = [decode(image, shape) if isinstance(image, ImageFile) else image for image in opened]
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
