"""Generation: draw images, interpolate between them, reconstruct given images or redraw them as another class."""

from __future__ import annotations

from functools import partial

import bentoml
import numpy as np
from starlette.responses import Response

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.generator import Generator
from services.inference.interpolation import interpolate as latent_walk
from services.inference.noise import latents
from services.protocol.answers import (
    check_drawn,
    class_index,
    image_list,
    model_ref,
    off_loop,
    picture,
    read_images,
)
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.native import route
from services.protocol.samples import Samples, decoded, given_latents, labels_of, names_of
from services.protocol.schemas import (
    GenerateRequest,
    GenerateResponse,
    InterpolateRequest,
    ReconstructRequest,
    ReconstructResponse,
    RedrawRequest,
)
from services.protocol.stream import Stream
from services.telemetry.call import Call


async def generate(plane: DataPlane, request: GenerateRequest, call: Call) -> GenerateResponse | Response:
    """Draw samples. The same model, seed and parameters give the same bytes, on every replica and in every batch."""
    samples = Samples.of(plane, request)
    if request.stream:
        return await Stream.begun(samples.lines(call), call)
    images, quality = await samples.draw(range(samples.count), call)
    with call.stage("encode"):
        if request.format == "grid":
            return await off_loop(partial(picture, samples.model, images, seed=samples.seed), images.size)
        return GenerateResponse(
            model=model_ref(samples.model),
            seed=samples.seed,
            labels=samples.names,
            quality=quality,
            images=await off_loop(partial(image_list, images, request.format), images.size),
        )


async def interpolate(plane: DataPlane, request: InterpolateRequest, call: Call) -> GenerateResponse | Response:
    """Interpolate between two seeds, two latents or two images in the model's latent space."""
    model = plane.select(Generator, "decode" if request.images is None else "encode", request.model)
    check_drawn(request.steps, "steps", model, plane.settings)
    if request.images is not None:
        with call.stage("decode"):
            images = await read_images(request.images, model, plane.settings)
        ends = (await plane.infer(model, "encode", {"images": images}, call))["mean"]
    elif request.latents is not None:
        ends = given_latents(request.latents, model)
    else:
        ends = np.concatenate([latents(seed, [0], model.latent_size) for seed in request.seeds or ()])
    walk = latent_walk(ends[0], ends[1], request.steps, spherical=request.path == "spherical")
    # One class for all steps: there is no path between two classes.
    label = 0 if model.conditional and request.label is None else request.label
    labels = labels_of(model, label, request.steps)
    if request.seeds is not None:
        walk = model.latents(walk, labels)
    drawn = await decoded(plane, model, walk, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            return await off_loop(partial(picture, model, drawn, columns=request.steps), drawn.size)
        listed = await off_loop(partial(image_list, drawn, request.format), drawn.size)
        return GenerateResponse(model=model_ref(model), labels=names_of(model, labels), images=listed)


async def reconstruct(plane: DataPlane, request: ReconstructRequest, call: Call) -> ReconstructResponse | Response:
    """Encode images to latents and decode them again: shows what the latents keep of an image."""
    model, originals, mean = await _encoded(plane, request, call)
    labels = None if request.label is None else labels_of(model, request.label, len(originals))
    if model.conditional and labels is None:
        images, labels = await _closest(plane, model, originals, mean, call)
    else:
        images = await decoded(plane, model, mean, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            pairs = np.stack([originals, images], axis=1).reshape(-1, *images.shape[1:])
            return await off_loop(partial(picture, model, pairs, columns=2), pairs.size)
        return ReconstructResponse(
            model=model_ref(model),
            labels=names_of(model, labels),
            errors=_errors(originals, images).tolist(),
            images=await off_loop(partial(image_list, images, request.format), images.size),
        )


async def redraw(plane: DataPlane, request: RedrawRequest, call: Call) -> GenerateResponse | Response:
    """Encode images and decode them as another class, or as every class (models that draw by class)."""
    model, originals, mean = await _encoded(plane, request, call)
    names = model.bundle.manifest.class_names
    if not model.conditional or not names:
        message = f"model {model.bundle.name} does not draw by class; send a conditional model, or use /reconstruct"
        raise InvalidInput(message, field="model")
    chosen = range(len(names)) if request.label is None else [class_index(request.label, names)]
    check_drawn(len(originals) * len(chosen), "images times classes", model, plane.settings)
    labels = np.tile(np.array(chosen, np.int64), len(originals))
    drawn = await decoded(plane, model, np.repeat(mean, len(chosen), axis=0), labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            rows = drawn.reshape(len(originals), len(chosen), *drawn.shape[1:])
            rows = np.concatenate([originals[:, None], rows], axis=1)
            rows = rows.reshape(-1, *drawn.shape[1:])
            return await off_loop(partial(picture, model, rows, columns=1 + len(chosen)), rows.size)
        listed = await off_loop(partial(image_list, drawn, request.format), drawn.size)
        return GenerateResponse(model=model_ref(model), labels=names_of(model, labels), images=listed)


async def _encoded(
    plane: DataPlane, request: ReconstructRequest | RedrawRequest, call: Call
) -> tuple[Generator, np.ndarray, np.ndarray]:
    """The model, the images of a request, and their latents."""
    model = plane.select(Generator, "encode", request.model)
    with call.stage("decode"):
        originals = await read_images(request.images, model, plane.settings)
    return model, originals, (await plane.infer(model, "encode", {"images": originals}, call))["mean"]


async def _closest(
    plane: DataPlane, model: Generator, originals: np.ndarray, mean: np.ndarray, call: Call
) -> tuple[np.ndarray, np.ndarray]:
    """Decode each image as every class; return the decoded image nearest to the original, and its class [N]."""
    classes = max(1, len(model.bundle.manifest.class_names))
    labels = np.tile(np.arange(classes), len(originals))
    drawn = await decoded(plane, model, np.repeat(mean, classes, axis=0), labels, call)
    errors = _errors(np.repeat(originals, classes, axis=0), drawn).reshape(-1, classes)
    best = errors.argmin(axis=1)
    return drawn.reshape(len(originals), classes, *drawn.shape[1:])[np.arange(len(best)), best], best


def _errors(originals: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean squared error of each image [N], pixels scaled to 0..1."""
    difference = (originals.astype(np.float32) - images.astype(np.float32)) / 255
    errors: np.ndarray = (difference**2).mean(axis=(1, 2, 3))
    return errors


class GenerationRoutes:
    generate = route("/generate", generate, GenerateResponse)
    interpolate = route("/interpolate", interpolate, GenerateResponse)
    reconstruct = route("/reconstruct", reconstruct, ReconstructResponse)
    redraw = route("/redraw", redraw, GenerateResponse)


plane = DataPlane(["generation"])


@bentoml.service(name="generation", **CONFIG)
class Generation(Lifecycle, GenerationRoutes):
    """Draws images."""

    plane = plane


outfit(Generation, plane)
