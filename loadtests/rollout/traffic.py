"""The requests of a rollout test: many short ones, some on connections that pause, streams, and large bodies."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from loadtests.bench import request as requests
from loadtests.rollout.clients import Answer, Client, Tally, post
from services.inference.bundle import Bundle
from services.inference.session import Session

PAUSES = range(3, 11)  # seconds between two requests of a poller, who keeps the connection
SAMPLES = 400  # of a stream
STREAM_BYTES = 1_040_000  # about, of that many samples as arrays
STREAM_SECONDS = 3.0  # in which a client reads a stream
SIDE = 1500  # pixels of the sides of a large picture: 2.25 MB as a PNG of noise
UPLOAD_SECONDS = 2.0  # in which a client sends it


@dataclass(frozen=True)
class Mix:
    """How many clients of each kind there are; `rate` is that of the busy ones together, in requests a second."""

    rate: float = 250.0
    busy: int = 16
    pollers: int = 150
    streams: int = 1
    uploads: int = 1


@dataclass
class Traffic:
    """Clients of every kind that ask through `port` until they are stopped.

    Attributes:
        tallies: by kind of client.
    """

    port: int
    images: np.ndarray  # uint8 [N,1,28,28]
    classifier: Bundle
    generator: str
    mix: Mix
    tallies: dict[str, Tally] = field(default_factory=dict)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        session = Session(self.classifier.graph_path("classify"))
        expected = session.run({"images": self.images})["probabilities"].argmax(axis=1).tolist()
        self._asks = []
        for image, best in zip(self.images, expected, strict=True):
            one = requests.v2_binary(self.classifier.name, image[None])
            self._asks.append((one.raw("duet"), partial(_has_class, one.read, best)))
        noise = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), np.uint8)
        self._upload = requests.native_png(noise[None]).raw("duet")
        stream = {"model": self.generator, "count": SAMPLES, "stream": True, "format": "array", "seed": 1}
        self._stream = post("/generate", json.dumps(stream).encode())

    async def run(self) -> None:
        """Ask until `stop` is called; each client completes the request that it has begun."""
        mix = self.mix
        busy = (self._busy(number) for number in range(mix.busy))
        pollers = (self._poll(number) for number in range(mix.pollers))
        streams = (self._repeat("streams", self._stream, _is_whole, read=STREAM_SECONDS) for _ in range(mix.streams))
        uploads = (
            self._repeat("large bodies", self._upload, _has_label, upload=UPLOAD_SECONDS) for _ in range(mix.uploads)
        )
        clients: list[Awaitable[None]] = [*busy, *pollers, *streams, *uploads]
        await asyncio.gather(*clients)

    def stop(self) -> None:
        self._stopped.set()

    def _tally(self, kind: str) -> Tally:
        return self.tallies.setdefault(kind, Tally())

    async def _busy(self, number: int) -> None:
        random = np.random.default_rng(number)
        client = Client(self.port, self._tally("busy connections"))
        for turn in itertools.count(number):
            if self._stopped.is_set():
                break
            begin = time.monotonic()
            await client.ask(*self._asks[turn % len(self._asks)])
            pause = random.exponential(self.mix.busy / self.mix.rate)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - begin)))
        await client.close()

    async def _poll(self, number: int) -> None:
        """Ask at whole seconds, as pollers do, so that many pause for the same time and ask at the same moment."""
        random = np.random.default_rng(1000 + number)
        client = Client(self.port, self._tally("connections with pauses"))
        due = float(np.ceil(time.monotonic())) + float(random.integers(0, PAUSES[-1]))
        for turn in itertools.count(number):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), due - time.monotonic())
                break
            await client.ask(*self._asks[turn % len(self._asks)])
            due += float(random.choice(PAUSES))
        await client.close()

    async def _repeat(
        self, kind: str, request: bytes, check: Callable[[Answer], str], *, upload: float = 0.0, read: float = 0.0
    ) -> None:
        client = Client(self.port, self._tally(kind), upload, read, STREAM_BYTES)
        while not self._stopped.is_set():
            await client.ask(request, check)
        await client.close()


def _has_class(read: requests.Read, expected: int, answer: Answer) -> str:
    found, _ = read(answer.body, _json_length(answer.head))
    return "" if found == expected else f"class {found}, but the graph gives {expected}"


def _json_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"inference-header-content-length:")
    return int(rest.partition(b"\r\n")[0])


def _has_label(answer: Answer) -> str:
    return "" if len(json.loads(answer.body)["predictions"]) == 1 else "no prediction"


def _is_whole(answer: Answer) -> str:
    lines = answer.body.splitlines()
    whole = len(lines) == SAMPLES + 2 and json.loads(lines[-1]) == {"drawn": SAMPLES}
    return "" if whole else f"a stream of {len(lines)} lines that ends with {lines[-1][:60]!r}"
