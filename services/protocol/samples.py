"""The samples of `/generate`, all at once or part by part; and functions that the other generator routes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from services.dataplane import DataPlane
from services.errors import DeadlineExceeded, InvalidInput, NotReady, QueueFull
from services.inference.chain import Chains
from services.inference.generator import Generator
from services.inference.noise import fresh_seed, latents
from services.protocol.answers import INLINE_PIXELS, check_count, check_drawn, class_index, image_list, model_ref
from services.protocol.quality import Drawn, Judges
from services.protocol.schemas import GenerateRequest, Quality
from services.telemetry import metrics
from services.telemetry.call import Call

PART_ITEMS = 64  # most samples of a stream that are drawn and sent together
PATIENCE_SECONDS = 0.05  # pause of a stream while the queue is full


@dataclass(frozen=True)
class Samples:
    """The samples of one request.

    Attributes:
        model: the generator.
        count: number of samples.
        seed: the seed of the latents; None if the latents are `given`, float32 [count,D].
        labels: class indices int64 [count]; None for an unconditional model.
        judges: judge each sample; None if the request does not ask for it.
        cacheable: whether the cache may store them.
    """

    plane: DataPlane
    model: Generator
    request: GenerateRequest
    count: int
    seed: int | None
    labels: np.ndarray | None
    judges: Judges | None
    cacheable: bool
    given: np.ndarray | None

    @classmethod
    def of(cls, plane: DataPlane, request: GenerateRequest) -> Samples:
        """The samples that a request asks for, wholly validated.

        Raises:
            InvalidInput, TooLarge, UnknownModel: naming the field.
        """
        model = plane.select(Generator, "decode", request.model)
        count, field = request.count, "count"
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
        noise = seed = None
        if request.latents is not None:
            noise = given_latents(request.latents, model)
        else:
            seed = fresh_seed() if request.seed is None else request.seed
        # Samples of a fresh seed are not requested again, and a stream would evict the answers of other requests.
        cacheable = not request.stream and (request.seed is not None or noise is not None)
        labels = labels_of(model, request.label, count)
        judges = None
        if request.quality or request.min_quality is not None:
            judges = Judges.of(plane, model, request.min_quality, cacheable=cacheable)
        return cls(plane, model, request, count, seed, labels, judges, cacheable, noise)

    @property
    def names(self) -> list[str] | None:
        """The class of each sample."""
        return names_of(self.model, self.labels)

    async def draw(self, items: range, call: Call) -> tuple[np.ndarray, list[Quality] | None]:
        """Some of the samples, uint8 [n,C,H,W], and the quality of each if the request asks for it."""
        labels = None if self.labels is None else self.labels[items.start : items.stop]
        if self.request.sampler != "prior":
            images = await self._chosen(items, labels, call)
        elif self.given is not None:
            images = await self._decoded(self.given[items.start : items.stop], labels, call)
        else:
            images = await self._drawn(items, labels, call)
        if self.judges is None:
            return images, None

        async def again(numbers: list[int], rows: np.ndarray) -> np.ndarray:
            return await self._drawn(numbers, None if labels is None else labels[rows], call)

        return await self.judges.judged(Drawn(images, labels, items), again, call)

    async def lines(self, call: Call) -> AsyncGenerator[bytes, None]:
        """All samples as lines of JSON, some at a time; the first line has model, seed and count."""
        _, height, width = self.model.bundle.manifest.image.shape
        size = max(1, min(PART_ITEMS, INLINE_PIXELS // (height * width)))
        names, unasked = self.names, self.count
        lines = [_line({"model": model_ref(self.model).model_dump(), "seed": self.seed, "count": self.count})]
        try:
            for start in range(0, self.count, size):
                items = range(start, min(start + size, self.count))
                unasked = self.count - items.stop
                images, judged = await (self._patiently(items, call) if start else self.draw(items, call))
                with call.stage("encode"):
                    for i, image in enumerate(image_list(images, self.request.format)):
                        label = None if names is None else names[items[i]]
                        quality = None if judged is None else judged[i].model_dump(exclude_none=True)
                        lines.append(_line({"index": items[i], "label": label, "image": image, "quality": quality}))
                yield b"".join(lines)
                lines = []
            yield _line({"drawn": self.count})
        except (GeneratorExit, asyncio.CancelledError, NotReady):
            metrics.ABANDONED.labels(self.model.bundle.name, "caller-left").inc(unasked)
            raise
        except DeadlineExceeded:
            metrics.ABANDONED.labels(self.model.bundle.name, "deadline").inc(unasked)
            raise

    async def _patiently(self, items: range, call: Call) -> tuple[np.ndarray, list[Quality] | None]:
        """Draw, and wait for room in the queue until the deadline: a stream that has begun cannot answer 429."""
        while True:
            try:
                return await self.draw(items, call)
            except QueueFull:
                try:
                    await asyncio.sleep(PATIENCE_SECONDS)
                except asyncio.CancelledError:
                    metrics.ABANDONED.labels(self.model.bundle.name, "caller-left").inc(len(items))
                    raise

    async def _drawn(self, numbers: Sequence[int], labels: np.ndarray | None, call: Call) -> np.ndarray:
        """Samples of the prior, one for each number of a draw."""
        noise = latents(self.seed or 0, numbers, self.model.latent_size, truncation=self.request.truncation)
        return await self._decoded(self.model.latents(noise, labels), labels, call)

    async def _decoded(self, noise: np.ndarray, labels: np.ndarray | None, call: Call) -> np.ndarray:
        return await decoded(self.plane, self.model, noise, labels, call, cacheable=self.cacheable)

    async def _chosen(self, items: range, labels: np.ndarray | None, call: Call) -> np.ndarray:
        """The last samples of Metropolis-Hastings chains; their proposals are draws of the seed."""
        chains = Chains(self.seed or 0, items)
        given = {} if labels is None else {"labels": labels}
        for numbers in chains.draws():
            images = await self._drawn(numbers, labels, call)
            inputs = {"images": images} | given
            outputs = await self.plane.infer(self.model, "discriminate", inputs, call, cacheable=self.cacheable)
            chains.propose(images, outputs["log_ratio"])
        return chains.images


def _line(fields: dict[str, object]) -> bytes:
    given = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps(given, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


async def decoded(
    plane: DataPlane,
    model: Generator,
    noise: np.ndarray,
    labels: np.ndarray | None,
    call: Call,
    *,
    cacheable: bool = True,
) -> np.ndarray:
    """Images uint8 [N,C,H,W] of latents float32 [N,D] and classes int64 [N]."""
    inputs = {"latents": noise} if labels is None else {"latents": noise, "labels": labels}
    images = (await plane.infer(model, "decode", inputs, call, cacheable=cacheable))["images"]
    metrics.SAMPLES.labels(model.bundle.name).inc(len(images))
    return images


def given_latents(rows: Sequence[Sequence[float]], model: Generator) -> np.ndarray:
    """A caller's latents float32 [N,D]."""
    for i, row in enumerate(rows):
        if len(row) != model.latent_size:
            raise InvalidInput(
                f"latents[{i}] has {len(row)} numbers; {model.bundle.name} takes {model.latent_size}",
                field=f"latents[{i}]",
            )
    noise = np.array(rows, np.float64)
    # Numbers beyond float32 would become infinite; NaN is not valid JSON and is refused before.
    bad = np.flatnonzero(~(np.abs(noise) <= np.finfo(np.float32).max).all(axis=1))
    if len(bad):
        raise InvalidInput(f"latents[{bad[0]}] holds a number that is not finite", field=f"latents[{bad[0]}]")
    return noise.astype(np.float32)


def labels_of(model: Generator, label: str | int | None, count: int) -> np.ndarray | None:
    """Class indices int64 [count]: the requested class, or all in turn; None for an unconditional model."""
    names = model.bundle.manifest.class_names
    if not model.conditional:
        if label is not None:
            raise InvalidInput(
                f"class: model {model.bundle.name} does not draw by class; leave class out", field="class"
            )
        return None
    if label is None:
        return model.classes_in_turn(count)
    return np.full(count, class_index(label, names), np.int64)


def names_of(model: Generator, labels: np.ndarray | None) -> list[str] | None:
    names = model.bundle.manifest.class_names
    return None if labels is None or not names else [names[label] for label in labels]
