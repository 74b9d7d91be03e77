"""What the native routes share: images of requests, references to models, images of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.responses import Response

from services.dataplane import DataPlane
from services.errors import InvalidInput, TooLarge
from services.inference.classifier import ACTIVATION, Classifier
from services.inference.model import Model
from services.protocol.images import ImageFile, decode, enlarged, grid, open_image, text_png
from services.protocol.schemas import ModelRef
from services.settings import Settings
from services.telemetry.call import Call

T = TypeVar("T")

INLINE_PIXELS = 2**18  # 512 x 512: about 5 ms
DECODER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duet-decode")


def model_ref(model: Model) -> ModelRef:
    return ModelRef(name=model.bundle.name, version=model.bundle.version, digest=model.bundle.digest)


def check_count(count: int, field: str, limit: int) -> None:
    """Refuse more items than a request may have.

    Raises:
        TooLarge: naming the field and the limit.
    """
    if count > limit:
        raise TooLarge(f"{field}: {count} items; at most {limit} are allowed in one request", field=field)


def check_drawn(count: int, field: str, model: Model, settings: Settings) -> None:
    """Refuse more images, or more pixels in them, than an answer may have.

    Raises:
        TooLarge: naming the field and the limit.
    """
    check_count(count, field, settings.request_items)
    _, height, width = model.bundle.manifest.image.shape
    if count * height * width > settings.image_pixels:
        size, limit = f"{width} x {height}", f"{settings.image_pixels // (height * width)} such images"
        pixels = f"{settings.image_pixels} pixels"
        message = f"{field}: {count} images of {size}; at most {limit} ({pixels}) are allowed in one answer"
        raise TooLarge(message, field=field)


async def off_loop(work: Callable[[], T], pixels: int) -> T:
    """What `work` on so many pixels returns; large work runs in a thread, for one request at a time."""
    if pixels <= INLINE_PIXELS:
        return work()
    return await asyncio.get_running_loop().run_in_executor(DECODER, work)


async def read_images(values: Sequence[object], model: Model, settings: Settings, field: str = "images") -> np.ndarray:
    """A request's images as one batch uint8 [N,C,H,W] of the model's shape, wholly validated.

    `image_pixels` bounds all files of one request together. Many pixels are decoded off the event loop, one request
    at a time, so that they do not delay other requests and need little memory.

    Raises:
        InvalidInput, TooLarge: naming the image, `images[3]`.
    """
    check_count(len(values), field, settings.request_items)
    shape = model.bundle.manifest.image.shape
    opened: list[ImageFile | np.ndarray] = []
    left = settings.image_pixels
    for i, value in enumerate(values):
        image = open_image(value, shape, f"{field}[{i}]", max_pixels=left)
        left -= image.pixels if isinstance(image, ImageFile) else 0
        opened.append(image)

    def pixels() -> np.ndarray:
        arrays = [decode(image, shape) if isinstance(image, ImageFile) else image for image in opened]
        return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)

    return await off_loop(pixels, settings.image_pixels - left)


def class_index(label: str | int, class_names: Sequence[str], field: str = "class") -> int:
    """The index of a class given by name, or by index.

    Raises:
        InvalidInput: no such class; the message lists them.
    """
    if str(label) in class_names:
        return class_names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(class_names):
        return label
    raise InvalidInput(f"{field}: {str(label)[:40]!r} is not one of {', '.join(class_names)}", field=field)


async def saliency(
    plane: DataPlane,
    model: Classifier,
    kind: str,
    images: np.ndarray,
    labels: np.ndarray,
    classified: Mapping[str, np.ndarray],
    call: Call,
) -> np.ndarray:
    """Saliency maps float32 [N,H,W] of images uint8 [N,C,H,W] for the classes int64 [N].

    `kind` is an operation of the model. Occlusion and rise are computed here. A class activation map is one of the
    outputs `classified`, and is enlarged bilinearly.
    """
    if kind != ACTIVATION:
        inputs = {"images": images, "labels": labels.astype(np.int64)}
        return (await plane.infer(model, kind, inputs, call))["saliency"]
    maps = classified[ACTIVATION][np.arange(len(labels)), labels]
    return np.stack([enlarged(one, images.shape[2:]) for one in maps])


def image_list(images: np.ndarray, form: str) -> list[Any]:
    """Images uint8 [N,C,H,W] for a JSON answer: base64 PNG each, or arrays [H,W] ([H,W,3] in colour), for orjson."""
    if form == "png":
        return [text_png(image) for image in images]
    return list(images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1)))


def picture(model: Model, images: np.ndarray, *, columns: int | None = None, seed: int | None = None) -> Response:
    """Images as one PNG; model and seed stand in headers."""
    headers = {"X-Model": f"{model.bundle.name}:{model.bundle.version}", "X-Model-Digest": model.bundle.digest}
    if seed is not None:
        headers["X-Seed"] = str(seed)
    return Response(grid(images, columns=columns), media_type="image/png", headers=headers)
