"""Images and models in native answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.inference.model import Model
from services.protocol.images import grid, text_png
from services.protocol.native.answers import ModelRef
from services.protocol.raw_response import RawResponse
from services.scheduling.offload import INLINE_PIXELS
from services.served import Served


def about_model(served: Served[Model]) -> dict[str, str]:
    """The fields of `ModelRef`."""
    entry = served.entry
    return {"name": entry.name, "version": entry.version, "digest": served.model.bundle.digest}


def model_ref(served: Served[Model]) -> ModelRef:
    return ModelRef(**about_model(served))


def image_list(images: np.ndarray, form: str) -> list[Any]:
    """Images uint8 [N,C,H,W] for a JSON answer: base64 PNG each, or arrays [H,W] ([H,W,3] in colour), for orjson."""
    if form == "png":
        return [text_png(image) for image in images]
    return list(images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1)))


async def encoded_images(images: np.ndarray, form: str, plane: DataPlane, call: Call) -> list[Any]:
    """`image_list`, off the event loop if there are many pixels."""
    return await plane.offload.run_if_large(partial(image_list, images, form), call, images.size, INLINE_PIXELS)


async def picture(
    served: Served[Model],
    images: np.ndarray,
    plane: DataPlane,
    call: Call,
    *,
    columns: int | None = None,
    seed: int | None = None,
) -> RawResponse:
    """Images as one PNG; model and seed stand in headers."""
    entry = served.entry
    headers = [
        (b"content-type", b"image/png"),
        (b"x-model", f"{entry.name}:{entry.version}".encode()),
        (b"x-model-digest", served.model.bundle.digest.encode()),
    ]
    if seed is not None:
        headers.append((b"x-seed", b"%d" % seed))
    body = await plane.offload.run_if_large(partial(grid, images, columns=columns), call, images.size, INLINE_PIXELS)
    return RawResponse(200, headers, body)
