"""Generation: draw images, walk between them, redraw given ones."""

from __future__ import annotations

import bentoml
import numpy as np
from starlette.responses import Response

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.generator import Generator
from services.inference.interpolation import interpolate as latent_walk
from services.inference.noise import fresh_seed, latents
from services.protocol.answers import check_count, class_index, image_list, model_ref, picture, read_images
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.native import route
from services.protocol.schemas import (
    GenerateRequest,
    GenerateResponse,
    InterpolateRequest,
    ReconstructRequest,
    ReconstructResponse,
)
from services.telemetry import metrics
from services.telemetry.call import Call


async def generate(plane: DataPlane, request: GenerateRequest, call: Call) -> GenerateResponse | Response:
    """Draw samples. The same model, seed and parameters give the same bytes, on every replica and batch size."""
    model = plane.select(Generator, "decode", request.model)
    check_count(request.count, "count", plane.settings)
    labels = _labels(model, request.label, request.count)
    seed = fresh_seed() if request.seed is None else request.seed
    noise = latents(seed, request.count, model.latent_size, truncation=request.truncation)
    # An answer to a fresh seed would never be asked for again.
    images = await _decode(plane, model, noise, labels, call, cacheable=request.seed is not None)
    with call.stage("encode"):
        if request.format == "grid":
            return picture(model, images, seed=seed)
        return GenerateResponse(
            model=model_ref(model), seed=seed, labels=_names(model, labels), images=image_list(images, request.format)
        )


async def interpolate(plane: DataPlane, request: InterpolateRequest, call: Call) -> GenerateResponse | Response:
    """Walk between two seeds or two images through the model's latent space."""
    check_count(request.steps, "steps", plane.settings)
    if request.images is None:
        model = plane.select(Generator, "decode", request.model)
        ends = np.concatenate([latents(seed, 1, model.latent_size) for seed in request.seeds or ()])
    else:
        model = plane.select(Generator, "encode", request.model)
        with call.stage("decode"):
            images = await read_images(request.images, model, plane.settings)
        ends = (await plane.infer(model, "encode", {"images": images}, call))["mean"]
    walk = latent_walk(ends[0], ends[1], request.steps, spherical=request.path == "spherical")
    # One class for the whole walk: classes do not lie on a line.
    label = 0 if model.conditional and request.label is None else request.label
    labels = _labels(model, label, request.steps)
    drawn = await _decode(plane, model, walk, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            return picture(model, drawn, columns=request.steps)
        return GenerateResponse(
            model=model_ref(model), labels=_names(model, labels), images=image_list(drawn, request.format)
        )


async def reconstruct(plane: DataPlane, request: ReconstructRequest, call: Call) -> ReconstructResponse | Response:
    """Redraw images from their latents alone: what a model with an encoder keeps of them."""
    model = plane.select(Generator, "encode", request.model)
    with call.stage("decode"):
        originals = await read_images(request.images, model, plane.settings)
    mean = (await plane.infer(model, "encode", {"images": originals}, call))["mean"]
    images = await _decode(plane, model, mean, None, call)
    with call.stage("encode"):
        if request.format == "grid":
            pairs = np.stack([originals, images], axis=1).reshape(-1, *images.shape[1:])
            return picture(model, pairs, columns=2)
        difference = (originals.astype(np.float32) - images.astype(np.float32)) / 255
        errors = [float(error) for error in (difference**2).mean(axis=(1, 2, 3))]
        return ReconstructResponse(model=model_ref(model), errors=errors, images=image_list(images, request.format))


async def _decode(
    plane: DataPlane,
    model: Generator,
    noise: np.ndarray,
    labels: np.ndarray | None,
    call: Call,
    *,
    cacheable: bool = True,
) -> np.ndarray:
    inputs = {"latents": noise} if labels is None else {"latents": noise, "labels": labels}
    images = (await plane.infer(model, "decode", inputs, call, cacheable=cacheable))["images"]
    metrics.SAMPLES.labels(model.bundle.name).inc(len(images))
    return images


def _labels(model: Generator, label: str | int | None, count: int) -> np.ndarray | None:
    """Class indices int64 [count]: the one asked for, or all in turn; None for an unconditional model."""
    names = model.bundle.manifest.class_names
    if not model.conditional:
        if label is not None:
            raise InvalidInput(f"model {model.bundle.name} does not draw by class; leave class out", field="class")
        return None
    if label is None:
        return model.classes_in_turn(count)
    return np.full(count, class_index(label, names), np.int64)


def _names(model: Generator, labels: np.ndarray | None) -> list[str] | None:
    names = model.bundle.manifest.class_names
    return None if labels is None or not names else [names[label] for label in labels]


class GenerationRoutes:
    generate = route("/generate", generate, GenerateResponse)
    interpolate = route("/interpolate", interpolate, GenerateResponse)
    reconstruct = route("/reconstruct", reconstruct, ReconstructResponse)


plane = DataPlane(["generation"])


@bentoml.service(name="generation", **CONFIG)
class Generation(Lifecycle, GenerationRoutes):
    """Draws images."""

    plane = plane


outfit(Generation, plane)
