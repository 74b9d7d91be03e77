"""Steady load on services: requests that leave when they are due, whether or not earlier ones were answered."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx
import numpy as np

from loadtests.load.pictures import png

HOT = 8  # pictures that come again and again


class Stream(threading.Thread):
    """Requests to one route of replicas in turn, within a `with` block.

    Attributes:
        hosts: host and port of each replica.
        statuses: what was answered; 0 is no answer.
    """

    def __init__(self, route: str, rate: float, hosts: list[str], questions: Iterator[dict[str, Any]]) -> None:
        super().__init__()
        self.hosts, self._route, self._rate, self._questions = hosts, route, rate, questions
        self._ended = threading.Event()
        self._statuses: set[int] = set()

    @property
    def statuses(self) -> frozenset[int]:
        return frozenset(self._statuses)

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        asking: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=1000)) as client:
            due = time.monotonic()
            for number, question in enumerate(self._questions):
                if self._ended.is_set():
                    break
                hosts = self.hosts
                task = asyncio.create_task(self._ask(client, hosts[number % len(hosts)], question))
                asking.add(task)
                task.add_done_callback(asking.discard)
                due += 1 / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*asking)

    async def _ask(self, client: httpx.AsyncClient, host: str, question: dict[str, Any]) -> None:
        try:
            answer = await client.post(f"http://{host}{self._route}", json=question)
            self._statuses.add(answer.status_code)
        except httpx.TransportError:
            self._statuses.add(0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def text(image: np.ndarray) -> str:
    """uint8 [H,W] as a PNG in base64."""
    return base64.b64encode(png(image[None])).decode()


def classifications(images: np.ndarray) -> Iterator[dict[str, Any]]:
    """Of uint8 [N,1,H,W]: one picture in 16 is one of a few, the others have noise and are new."""
    noise = np.random.default_rng(0)
    for number in itertools.count():
        if number // 2 % 16 == 0:
            image = images[number // 32 % HOT, 0]
        else:
            image = images[number % len(images), 0] ^ noise.integers(0, 2, images.shape[2:], dtype=np.uint8)
        yield {"images": [text(image)]}


def scores(usual: np.ndarray, others: np.ndarray, turned: threading.Event) -> Iterator[dict[str, Any]]:
    """Of uint8 [N,H,W], one after another, each once; others while the stream is turned to them."""
    for image, other in zip(usual, others, strict=True):
        yield {"images": [text(other if turned.is_set() else image)]}
