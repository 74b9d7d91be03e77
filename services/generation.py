"""Generation: draw images, walk between them, redraw given ones, as they are or as another class."""

from __future__ import annotations

from collections.abc import Sequence

import bentoml
import numpy as np
from starlette.responses import Response

from services.dataplane import DataPlane
from services.errors import InvalidInput
from services.inference.chain import Chains
from services.inference.generator import Generator
from services.inference.interpolation import interpolate as latent_walk
from services.inference.noise import fresh_seed, latents
from services.protocol.answers import check_count, class_index, image_list, model_ref, picture, read_images
from services.protocol.bento import CONFIG, Lifecycle, outfit
from services.protocol.native import route
from services.protocol.quality import Drawn, judged
from services.protocol.schemas import (
    GenerateRequest,
    GenerateResponse,
    InterpolateRequest,
    ReconstructRequest,
    ReconstructResponse,
    RedrawRequest,
)
from services.telemetry import metrics
from services.telemetry.call import Call


async def generate(plane: DataPlane, request: GenerateRequest, call: Call) -> GenerateResponse | Response:
    """Draw samples. The same model, seed and parameters give the same bytes, on every replica and batch size."""
    model = plane.select(Generator, "decode", request.model)
    seed: int | None = None
    if request.latents is not None:
        check_count(len(request.latents), "latents", plane.settings)
        noise = _given(request.latents, model)
    else:
        check_count(request.count, "count", plane.settings)
        seed = fresh_seed() if request.seed is None else request.seed
        noise = latents(seed, range(request.count), model.latent_size, truncation=request.truncation)
    labels = _labels(model, request.label, len(noise))
    # An answer to a fresh seed would never be asked for again.
    cacheable = request.seed is not None or request.latents is not None
    if request.sampler == "prior":
        images = await _decode(plane, model, noise, labels, call, cacheable=cacheable)
    else:
        images = await _chosen(plane, model, request, seed or 0, labels, call)
    quality = None
    if request.quality or request.min_quality is not None:

        async def again(rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
            chosen = None if labels is None else labels[rows]
            return await _decode(plane, model, noise, chosen, call, cacheable=cacheable)

        images, quality = await judged(plane, model, Drawn(images, labels, seed), request, again, call)
    with call.stage("encode"):
        if request.format == "grid":
            return picture(model, images, seed=seed)
        return GenerateResponse(
            model=model_ref(model),
            seed=seed,
            labels=_names(model, labels),
            quality=quality,
            images=image_list(images, request.format),
        )


async def interpolate(plane: DataPlane, request: InterpolateRequest, call: Call) -> GenerateResponse | Response:
    """Walk between two seeds, two latents or two images through the model's latent space."""
    check_count(request.steps, "steps", plane.settings)
    if request.images is not None:
        model = plane.select(Generator, "encode", request.model)
        with call.stage("decode"):
            images = await read_images(request.images, model, plane.settings)
        ends = (await plane.infer(model, "encode", {"images": images}, call))["mean"]
    else:
        model = plane.select(Generator, "decode", request.model)
        if request.latents is not None:
            ends = _given(request.latents, model)
        else:
            ends = np.concatenate([latents(seed, [0], model.latent_size) for seed in request.seeds or ()])
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
    """Redraw images from their latents alone (and their class): what a model with an encoder keeps of them."""
    model, originals, mean = await _encoded(plane, request, call)
    labels = None if request.label is None else _labels(model, request.label, len(originals))
    if model.conditional and labels is None:
        images, labels = await _closest(plane, model, originals, mean, call)
    else:
        images = await _decode(plane, model, mean, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            pairs = np.stack([originals, images], axis=1).reshape(-1, *images.shape[1:])
            return picture(model, pairs, columns=2)
        return ReconstructResponse(
            model=model_ref(model),
            labels=_names(model, labels),
            errors=_errors(originals, images).tolist(),
            images=image_list(images, request.format),
        )


async def redraw(plane: DataPlane, request: RedrawRequest, call: Call) -> GenerateResponse | Response:
    """Draw images as another class, or as every class: what this one would look like as a 4."""
    model, originals, mean = await _encoded(plane, request, call)
    names = model.bundle.manifest.class_names
    if not model.conditional or not names:
        raise InvalidInput(f"model {model.bundle.name} does not draw by class; /reconstruct redraws", field="model")
    chosen = range(len(names)) if request.label is None else [class_index(request.label, names)]
    check_count(len(originals) * len(chosen), "images times classes", plane.settings)
    labels = np.tile(np.array(chosen, np.int64), len(originals))
    drawn = await _decode(plane, model, np.repeat(mean, len(chosen), axis=0), labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            rows = drawn.reshape(len(originals), len(chosen), *drawn.shape[1:])
            rows = np.concatenate([originals[:, None], rows], axis=1)
            return picture(model, rows.reshape(-1, *drawn.shape[1:]), columns=1 + len(chosen))
        return GenerateResponse(
            model=model_ref(model), labels=_names(model, labels), images=image_list(drawn, request.format)
        )


async def _chosen(
    plane: DataPlane,
    model: Generator,
    request: GenerateRequest,
    seed: int,
    labels: np.ndarray | None,
    call: Call,
) -> np.ndarray:
    """Samples at the ends of Metropolis-Hastings chains, whose proposals are what the seed draws."""
    if not model.can_discriminate:
        raise InvalidInput(f"sampler: {model.bundle.name} has no discriminator; ask for prior", field="sampler")
    cacheable = request.seed is not None
    chains = Chains(seed, range(request.count))
    for numbers in chains.draws():
        noise = latents(seed, numbers, model.latent_size, truncation=request.truncation)
        images = await _decode(plane, model, noise, labels, call, cacheable=cacheable)
        inputs = {"images": images} | ({} if labels is None else {"labels": labels})
        outputs = await plane.infer(model, "discriminate", inputs, call, cacheable=cacheable)
        chains.propose(images, outputs["log_ratio"])
    return chains.images


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
    """Of what each image is drawn as, class by class, the one that comes closest, and its class [N]."""
    classes = max(1, len(model.bundle.manifest.class_names))
    labels = np.tile(np.arange(classes), len(originals))
    drawn = await _decode(plane, model, np.repeat(mean, classes, axis=0), labels, call)
    errors = _errors(np.repeat(originals, classes, axis=0), drawn).reshape(-1, classes)
    best = errors.argmin(axis=1)
    return drawn.reshape(len(originals), classes, *drawn.shape[1:])[np.arange(len(best)), best], best


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


def _errors(originals: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean squared error of each image [N], pixels scaled to 0..1."""
    difference = (originals.astype(np.float32) - images.astype(np.float32)) / 255
    errors: np.ndarray = (difference**2).mean(axis=(1, 2, 3))
    return errors


def _given(rows: Sequence[Sequence[float]], model: Generator) -> np.ndarray:
    """A caller's latents float32 [N,D]."""
    for i, row in enumerate(rows):
        if len(row) != model.latent_size:
            raise InvalidInput(
                f"latents[{i}] has {len(row)} numbers; {model.bundle.name} takes {model.latent_size}",
                field=f"latents[{i}]",
            )
    noise = np.array(rows, np.float64)
    # Beyond float32 lies infinity, and NaN cannot come: it is no JSON.
    bad = np.flatnonzero(~(np.abs(noise) <= np.finfo(np.float32).max).all(axis=1))
    if len(bad):
        raise InvalidInput(f"latents[{bad[0]}] holds a number that is not finite", field=f"latents[{bad[0]}]")
    return noise.astype(np.float32)


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
    redraw = route("/redraw", redraw, GenerateResponse)


plane = DataPlane(["generation"])


@bentoml.service(name="generation", **CONFIG)
class Generation(Lifecycle, GenerationRoutes):
    """Draws images."""

    plane = plane


outfit(Generation, plane)
