"""`/generate`, `/interpolate`, `/reconstruct` and `/redraw`: draw images, or encode them and decode them again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from services.call import Call
from services.dataplane import DataPlane
from services.errors import CallerLeft, DeadlineExceeded, InvalidInput, NotReady, QueueFull
from services.inference.generator import Generator
from services.inference.interpolation import interpolate as latent_walk
from services.inference.noise import latents
from services.protocol.exchange import Answer
from services.protocol.image_input import read_images
from services.protocol.native.answers import GenerateResponse, Quality, ReconstructResponse
from services.protocol.native.rendering import encoded_images, image_list, model_ref, picture
from services.protocol.native.requests import GenerateRequest, InterpolateRequest, ReconstructRequest, RedrawRequest
from services.protocol.native.routes import Route, invalid
from services.protocol.raw_response import RawResponse
from services.protocol.stream import Stream
from services.scheduling.offload import INLINE_PIXELS
from services.served import Served
from services.tasks import quality
from services.tasks.generation import (
    classes_of,
    decode_latents,
    encode_images,
    every_class,
    labels_of,
    names_of,
    nearest_class,
    squared_errors,
)
from services.tasks.limits import check_count, check_drawn, class_index
from services.tasks.samples import Samples, Wish
from services.telemetry import metrics

PART_ITEMS = 64  # most samples of a stream that are drawn and sent together
PAUSE_SECONDS = 0.05  # of a stream while the queue is full
NUMBERS = TypeAdapter(list[float])


async def generate(plane: DataPlane, request: GenerateRequest, call: Call) -> GenerateResponse | Answer:
    """Draw samples. The same model, seed and parameters give the same bytes, on every replica and in every batch."""
    served = plane.select(Generator, "decode", request.model)
    samples = Samples.of(plane, served, await _wish(plane, served, request, call))
    if request.stream:
        return await Stream.start(_lines(samples, request.format, call), call)
    images, judged = await samples.draw(range(samples.wish.count), call)
    with call.stage("encode"):
        if request.format == "grid":
            return await picture(served, images, plane, call, seed=samples.seed)
        return GenerateResponse(
            model=model_ref(served),
            seed=samples.seed,
            labels=samples.names,
            quality=None if judged is None else list(map(_quality, judged)),
            images=await encoded_images(images, request.format, plane, call),
        )


async def _wish(plane: DataPlane, served: Served[Generator], request: GenerateRequest, call: Call) -> Wish:
    """What a request asks for, within the limits.

    Raises:
        InvalidInput, TooLarge: naming the field.
    """
    model, count, field = served.model, request.count, "count"
    if request.latents is not None:
        count, field = len(request.latents), "latents"
    if request.stream:
        if request.format == "grid":
            raise InvalidInput("format: a grid cannot be streamed; with stream, send png or array", field="format")
        check_count(count, field, plane.settings.stream_items)
    else:
        check_drawn(count, field, model, plane.settings)
    if request.sampler != "prior" and not model.can_discriminate:
        message = f"sampler: {request.sampler} needs a discriminator, which {model.bundle.name} lacks; send prior"
        raise InvalidInput(message, field="sampler")
    if request.latents is None:
        served.admit("decode", 1 if request.stream else count, call)
    return Wish(
        count=count,
        label=request.label,
        seed=request.seed,
        truncation=request.truncation,
        sampler=request.sampler,
        latents=None if request.latents is None else await _given_latents(request.latents, model, plane, call),
        quality=request.quality,
        min_quality=request.min_quality,
        cacheable=not request.stream,  # a stream would evict the answers of other requests
    )


async def _lines(samples: Samples, form: str, call: Call) -> AsyncGenerator[bytes, None]:
    """All samples as lines of JSON, some at a time; the first line has model, seed and count."""
    served, count = samples.served, samples.wish.count
    _, height, width = served.model.bundle.manifest.image.shape
    size = max(1, min(PART_ITEMS, INLINE_PIXELS // (height * width)))
    names, undrawn = samples.names, count
    lines = [_line({"model": model_ref(served).model_dump(), "seed": samples.seed, "count": count})]
    try:
        for start in range(0, count, size):
            items = range(start, min(start + size, count))
            undrawn = count - items.stop
            images, judged = await (_draw_when_free(samples, items, call) if start else samples.draw(items, call))
            with call.stage("encode"):
                for i, image in enumerate(image_list(images, form)):
                    label = None if names is None else names[items[i]]
                    found = None if judged is None else _quality(judged[i]).model_dump(exclude_none=True)
                    lines.append(_line({"index": items[i], "label": label, "image": image, "quality": found}))
            yield b"".join(lines)
            lines = []
        yield _line({"drawn": count})
    except (GeneratorExit, asyncio.CancelledError, CallerLeft, NotReady):
        metrics.ABANDONED.labels(served.entry.name, "caller-left").inc(undrawn)
        raise
    except DeadlineExceeded:
        metrics.ABANDONED.labels(served.entry.name, "deadline").inc(undrawn)
        raise


async def _draw_when_free(
    samples: Samples, items: range, call: Call
) -> tuple[np.ndarray, list[quality.Quality] | None]:
    """Draw, and wait for room in the queue until the deadline: a stream that has begun cannot answer 429."""
    while True:
        try:
            return await samples.draw(items, call)
        except QueueFull:
            try:
                await asyncio.sleep(PAUSE_SECONDS)
            except asyncio.CancelledError:
                metrics.ABANDONED.labels(samples.served.entry.name, "caller-left").inc(len(items))
                raise


def _line(fields: dict[str, object]) -> bytes:
    given = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _quality(found: quality.Quality) -> Quality:
    return Quality(**asdict(found))


async def interpolate(plane: DataPlane, request: InterpolateRequest, call: Call) -> GenerateResponse | RawResponse:
    """Interpolate between two seeds, two latents or two images in the model's latent space."""
    served = plane.select(Generator, "decode" if request.images is None else "encode", request.model)
    model = served.model
    check_drawn(request.steps, "steps", model, plane.settings)
    if request.images is not None:
        ends = await encode_images(served, await read_images(request.images, served, plane, call), call)
    elif request.latents is not None:
        ends = await _given_latents(request.latents, model, plane, call)
    else:
        ends = np.concatenate([latents(seed, [0], model.latent_size) for seed in request.seeds or ()])
    walk = latent_walk(ends[0], ends[1], request.steps, spherical=request.path == "spherical")
    # One class for all steps: there is no path between two classes.
    label = 0 if model.conditional and request.label is None else request.label
    labels = labels_of(model, label, request.steps)
    if request.seeds is not None:
        walk = model.latents(walk, labels)
    drawn = await decode_latents(served, walk, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            return await picture(served, drawn, plane, call, columns=request.steps)
        listed = await encoded_images(drawn, request.format, plane, call)
        return GenerateResponse(model=model_ref(served), labels=names_of(model, labels), images=listed)


async def reconstruct(plane: DataPlane, request: ReconstructRequest, call: Call) -> ReconstructResponse | RawResponse:
    """Encode images to latents and decode them again: shows what the latents keep of an image."""
    served = plane.select(Generator, "encode", request.model)
    searched = served.model.conditional and request.label is None
    if searched:
        count = len(request.images) * classes_of(served.model)
        check_drawn(count, "images times classes", served.model, plane.settings)
    originals, mean = await _encoded(plane, served, request, call)
    labels = None if request.label is None else labels_of(served.model, request.label, len(originals))
    if searched:
        images, labels = await nearest_class(served, originals, mean, call)
    else:
        images = await decode_latents(served, mean, labels, call)
    with call.stage("encode"):
        if request.format == "grid":
            pairs = np.stack([originals, images], axis=1).reshape(-1, *images.shape[1:])
            return await picture(served, pairs, plane, call, columns=2)
        return ReconstructResponse(
            model=model_ref(served),
            labels=names_of(served.model, labels),
            errors=squared_errors(originals, images).tolist(),
            images=await encoded_images(images, request.format, plane, call),
        )


async def redraw(plane: DataPlane, request: RedrawRequest, call: Call) -> GenerateResponse | RawResponse:
    """Encode images and decode them as another class, or as every class (models that draw by class)."""
    served = plane.select(Generator, "encode", request.model)
    model, names = served.model, served.model.bundle.manifest.class_names
    originals, mean = await _encoded(plane, served, request, call)
    if not model.conditional or not names:
        message = f"model {model.bundle.name} does not draw by class; send a conditional model, or use /reconstruct"
        raise InvalidInput(message, field="model")
    first = 0 if request.label is None else class_index(request.label, names)
    chosen = range(len(names)) if request.label is None else range(first, first + 1)
    check_drawn(len(originals) * len(chosen), "images times classes", model, plane.settings)
    drawn = await every_class(served, mean, chosen, call)
    with call.stage("encode"):
        if request.format == "grid":
            rows = np.concatenate([originals[:, None], drawn], axis=1).reshape(-1, *drawn.shape[2:])
            return await picture(served, rows, plane, call, columns=1 + len(chosen))
        listed = await encoded_images(drawn.reshape(-1, *drawn.shape[2:]), request.format, plane, call)
        labels = np.tile(np.array(chosen), len(originals))
        return GenerateResponse(model=model_ref(served), labels=names_of(model, labels), images=listed)


async def _encoded(
    plane: DataPlane, served: Served[Generator], request: ReconstructRequest | RedrawRequest, call: Call
) -> tuple[np.ndarray, np.ndarray]:
    """The images of a request, and their latents."""
    served.admit("encode", len(request.images), call)
    originals = await read_images(request.images, served, plane, call)
    return originals, await encode_images(served, originals, call)


async def _given_latents(rows: Sequence[object], model: Generator, plane: DataPlane, call: Call) -> np.ndarray:
    """A caller's latents float32 [N,D]."""
    work = partial(_latents, rows, model)
    return await plane.offload.run_if_large(work, call, len(rows) * model.latent_size, INLINE_PIXELS)


def _latents(rows: Sequence[object], model: Generator) -> np.ndarray:
    for i, row in enumerate(rows):
        try:
            NUMBERS.validate_python(row, strict=True)
        except ValidationError as error:
            raise invalid(error, "latents", i) from None
    noise = np.empty((len(rows), model.latent_size))
    for i, numbers in enumerate(cast("Sequence[list[float]]", rows)):
        if len(numbers) != model.latent_size:
            raise InvalidInput(
                f"latents[{i}] has {len(numbers)} numbers; {model.bundle.name} takes {model.latent_size}",
                field=f"latents[{i}]",
            )
        noise[i] = numbers
    # Numbers beyond float32 would become infinite; NaN is not valid JSON and is refused before.
    bad = np.flatnonzero(~(np.abs(noise) <= np.finfo(np.float32).max).all(axis=1))
    if len(bad):
        raise InvalidInput(f"latents[{bad[0]}] holds a number that is not finite", field=f"latents[{bad[0]}]")
    return noise.astype(np.float32)


ROUTES: tuple[Route[Any], ...] = (
    Route("/generate", generate, GenerateResponse),
    Route("/interpolate", interpolate, GenerateResponse),
    Route("/reconstruct", reconstruct, ReconstructResponse),
    Route("/redraw", redraw, GenerateResponse),
)
