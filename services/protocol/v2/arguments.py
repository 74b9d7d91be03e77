"""Inputs of V2 requests: images in each datatype, and parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.model import Model
from services.protocol.image_input import read_images
from services.protocol.v2.inference import InferRequest, short
from services.protocol.v2.tensors import datatype
from services.scheduling.offload import INLINE_PIXELS
from services.served import Served
from services.tasks.limits import check_count


async def given_images(
    inputs: dict[str, np.ndarray], served: Served[Model], plane: DataPlane, call: Call
) -> np.ndarray:
    """The `images` input as uint8 [N,C,H,W], validated."""
    given = inputs.get("images")
    if given is None:
        raise InvalidInput(
            f"inputs.images is missing; the inputs sent are {', '.join(inputs)[:80] or 'none'}", field="inputs.images"
        )
    shape = served.model.bundle.manifest.image.shape
    if given.dtype.kind == "O":
        if given.ndim != 1 or not len(given):
            message = f"inputs.images has shape {list(given.shape)}; send BYTES of shape [n], n at least 1"
            raise InvalidInput(message, field="inputs.images")
        return await read_images([_file(value) for value in given], served, plane, call, "inputs.images")
    if given.shape[1:] != shape or not len(given):
        raise InvalidInput(
            f"inputs.images has shape {list(given.shape)}; this model takes [n,{','.join(map(str, shape))}]",
            field="inputs.images",
        )
    check_count(len(given), "inputs.images", plane.settings.request_items)
    if given.dtype == np.uint8:
        return given
    if given.dtype != np.float32:
        message = f"inputs.images is {datatype(given)}; send UINT8, FP32 (pixels in 0..1) or BYTES (files)"
        raise InvalidInput(message, field="inputs.images")
    return await plane.offload.run_if_large(lambda: _pixels(given), call, given.size, 8 * INLINE_PIXELS)


def _pixels(given: np.ndarray) -> np.ndarray:
    if not (given.min() >= 0 and given.max() <= 1):  # NaN fails this too
        message = f"inputs.images has values {given.min():g} to {given.max():g}; send FP32 pixels in 0..1, or UINT8"
        raise InvalidInput(message, field="inputs.images")
    # A product of 255 and k/255 rounds to k, so FP32 and UINT8 of one image are the same image.
    rounded: np.ndarray = np.rint(given * np.float32(255)).astype(np.uint8)
    return rounded


def _file(value: bytes) -> bytes | str:
    """A PNG or JPEG file, or base64 of one, because BYTES are text in JSON."""
    return value if value[:1] in (b"\x89", b"\xff") else value.decode("latin-1")


def number(request: InferRequest, name: str, default: float) -> float:
    value = request.parameters.get(name, default)
    if type(value) not in (int, float):
        raise InvalidInput(f"parameters.{name} is {short(value)}; send a number", field=f"parameters.{name}")
    return float(value)


def integer(request: InferRequest, name: str, default: int) -> int:
    """An integer from a tensor of one element, or from a parameter."""
    tensor = request.inputs.get(name)
    if tensor is not None:
        if tensor.size != 1 or tensor.dtype.kind not in "iu":
            raise InvalidInput(f"inputs.{name} has shape {list(tensor.shape)}; send INT64 [1]", field=f"inputs.{name}")
        return int(tensor.item())
    value = request.parameters.get(name, default)
    if name == "seed" and type(value) is str and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)  # JavaScript rounds numbers above 2^53
    if type(value) is not int:
        raise InvalidInput(f"parameters.{name} is {short(value)}; send an integer", field=f"parameters.{name}")
    return value


def choice(request: InferRequest, name: str, allowed: Sequence[object]) -> object:
    """A parameter with one of the `allowed` values; the first is the default."""
    if name not in request.parameters:
        return allowed[0]
    value = request.parameters[name]
    if not any(value is one or (type(value) is str and value == one) for one in allowed):
        choices = ", ".join(short(one) for one in allowed)
        raise InvalidInput(f"parameters.{name} is {short(value)}; send one of {choices}", field=f"parameters.{name}")
    return value
