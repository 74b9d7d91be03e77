"""Samples of a generator: drawn from its prior or by a Metropolis-Hastings chain, all at once or part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from services.call import Call
from services.dataplane import DataPlane
from services.errors import CallerLeft, DeadlineExceeded
from services.inference.chain import STEPS, Chains
from services.inference.generator import Generator
from services.inference.noise import fresh_seed, latents
from services.scheduling.offload import Offload
from services.served import Arrays, Served
from services.tasks.generation import decode_latents, labels_of, names_of
from services.tasks.quality import Drawn, Quality, SampleEvaluators
from services.telemetry import metrics

Sampler = Literal["prior", "metropolis-hastings"]

INLINE_ITEMS = 32  # latents that a fitted prior makes on the event loop, some microseconds each


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        count: number of samples.
        label: class name or index; None: all classes in turn.
        seed: of the latents; None: a fresh one.
        truncation: scale of the latents.
        sampler: how latents become samples.
        latents: float32 [count,D] instead of a seed.
        quality: whether each sample is evaluated.
        min_quality: probability of its class that a sample must reach; None: none.
        cacheable: False if the samples are not asked for again in any case.
    """

    count: int
    label: str | int | None = None
    seed: int | None = None
    truncation: float = 1.0
    sampler: Sampler = "prior"
    latents: np.ndarray | None = None
    quality: bool = False
    min_quality: float | None = None
    cacheable: bool = True


@dataclass(frozen=True)
class Samples:
    """The samples of one request.

    Attributes:
        served: the generator.
        offload: where a fitted prior makes many latents.
        wish: what is asked for.
        seed: the seed of the latents; None if they are given.
        labels: class indices int64 [count]; None for an unconditional model.
        evaluators: evaluate each sample; None if the request does not ask for it.
        cacheable: whether the cache may store them.
    """

    served: Served[Generator]
    offload: Offload
    wish: Wish
    seed: int | None
    labels: np.ndarray | None
    evaluators: SampleEvaluators | None
    cacheable: bool

    @classmethod
    def of(cls, plane: DataPlane, served: Served[Generator], wish: Wish) -> Samples:
        """The samples of a wish, wholly validated.

        Raises:
            InvalidInput: naming the field.
        """
        model = served.model
        seed = None
        if wish.latents is None:
            seed = fresh_seed() if wish.seed is None else wish.seed
        # Samples of a fresh seed are not requested again.
        cacheable = wish.cacheable and (wish.seed is not None or wish.latents is not None)
        labels = labels_of(model, wish.label, wish.count)
        evaluators = None
        if wish.quality or wish.min_quality is not None:
            evaluators = SampleEvaluators.of(plane, model, wish.min_quality, cacheable=cacheable)
        return cls(served, plane.offload, wish, seed, labels, evaluators, cacheable)

    @property
    def names(self) -> list[str] | None:
        """The class of each sample."""
        return names_of(self.served.model, self.labels)

    async def draw(self, items: range, call: Call) -> tuple[np.ndarray, list[Quality] | None]:
        """Some of the samples, uint8 [n,C,H,W], and the quality of each if the request asks for it."""
        labels = None if self.labels is None else self.labels[items.start : items.stop]
        if self.wish.sampler != "prior":
            images = await self._chosen(items, labels, call)
        elif self.wish.latents is not None:
            given = self.wish.latents[items.start : items.stop]
            images = await self._decoded(given, labels, call, cacheable=self.cacheable)
        else:
            images = await self._drawn(items, labels, call)
        if self.evaluators is None:
            return images, None

        async def again(numbers: list[int], rows: np.ndarray) -> np.ndarray:
            return await self._drawn(numbers, None if labels is None else labels[rows], call)

        return await self.evaluators.evaluate(Drawn(images, labels, items), again, call)

    async def _drawn(
        self, numbers: Sequence[int], labels: np.ndarray | None, call: Call, *, cacheable: bool | None = None
    ) -> np.ndarray:
        """Samples of the prior, one for each number of a draw."""
        model = self.served.model
        noise = latents(self.seed or 0, numbers, model.latent_size, truncation=self.wish.truncation)
        if model.has_prior:
            work = partial(model.latents, noise, labels)
            try:
                noise = await self.offload.run_if_large(work, call, len(noise), INLINE_ITEMS)
            except (CallerLeft, DeadlineExceeded) as error:  # before the batcher could count them
                reason = "deadline" if isinstance(error, DeadlineExceeded) else "caller-left"
                metrics.ABANDONED.labels(self.served.entry.name, reason).inc(len(noise))
                raise
        return await self._decoded(noise, labels, call, cacheable=self.cacheable if cacheable is None else cacheable)

    async def _decoded(
        self, noise: np.ndarray, labels: np.ndarray | None, call: Call, *, cacheable: bool
    ) -> np.ndarray:
        return await decode_latents(self.served, noise, labels, call, cacheable=cacheable)

    async def _chosen(self, items: range, labels: np.ndarray | None, call: Call) -> np.ndarray:
        """The last samples of Metropolis-Hastings chains; the cache stores them, and none of their proposals."""

        async def compute(rows: np.ndarray | None) -> Arrays:
            chosen = list(items) if rows is None else [items[row] for row in rows]
            return {
                "images": await self._chain(chosen, labels if rows is None or labels is None else labels[rows], call)
            }

        if not self.cacheable:
            return (await compute(None))["images"]
        wish = {"seed": self.seed or 0, "truncation": self.wish.truncation}
        inputs = {name: np.full(len(items), value) for name, value in wish.items()} | {"items": np.array(items)}
        if labels is not None:
            inputs["labels"] = labels
        outputs = await self.served.remember("metropolis-hastings", "decode", 2 * STEPS, inputs, call, compute)
        return outputs["images"]

    async def _chain(self, items: Sequence[int], labels: np.ndarray | None, call: Call) -> np.ndarray:
        """Images uint8 [N,C,H,W]: the ends of the chains of these items; proposals are draws of the seed."""
        chains = Chains(self.seed or 0, items)
        given = {} if labels is None else {"labels": labels}
        for numbers in chains.draws():
            images = await self._drawn(numbers, labels, call, cacheable=False)
            outputs = await self.served.infer("discriminate", {"images": images} | given, call, cacheable=False)
            chains.propose(images, outputs["log_ratio"])
        return chains.images
