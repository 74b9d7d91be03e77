"""Clients that name a version, or none, while versions change; each answer is computed again in this process."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from loadtests.rollout.clients import Answer, Client, Tally, post
from services.inference.bundle import Bundle
from services.inference.session import Session

AGREEMENT = 1e-5  # between a probability that was answered and one that is computed here


@dataclass(frozen=True)
class Way:
    """How a client asks: by a route, with a version or without."""

    name: str
    request: bytes
    pinned: str  # digest that must answer; empty: any that is served


@dataclass
class Visitors:
    """Clients that ask again and again until they are stopped.

    Attributes:
        tallies: by the way of asking.
        answered: answers without a pinned version, by the digest that computed them.
        last: when the last of them came, by digest.
    """

    port: int
    images: np.ndarray  # uint8 [N,1,28,28]
    rate: float
    count: int = 16
    tallies: dict[str, Tally] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    _known: dict[str, np.ndarray] = field(default_factory=dict)
    _pinned: tuple[Bundle, ...] = ()
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._bodies = []  # of V2, and of /classify with a place for the model
        for image in self.images:
            tensor = {"name": "images", "datatype": "UINT8", "shape": (1, *image.shape), "data": image.ravel().tolist()}
            v2 = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
            self._bodies.append((v2, json.dumps({"images": [image.tolist()], "top_k": 1})[:-1].encode() + b"%b}"))

    def know(self, versions: Sequence[Bundle]) -> None:
        """Compute what these versions answer."""
        for version in versions:
            session = Session(version.graph_path("classify"))
            self._known[version.digest] = session.run({"images": self.images})["probabilities"]

    def pin(self, *versions: Bundle) -> None:
        """From now on clients that name a version name these."""
        self._pinned = versions

    async def run(self, name: str) -> None:
        await asyncio.gather(*(self._visit(name, number) for number in range(self.count)))

    def stop(self) -> None:
        self._stopped.set()

    @property
    def total(self) -> int:
        """Requests so far."""
        return sum(tally.asked for tally in self.tallies.values())

    def failures(self) -> Mapping[str, dict[str, int]]:
        return {way: dict(tally.failures) for way, tally in self.tallies.items() if tally.failures}

    async def _visit(self, name: str, number: int) -> None:
        random = np.random.default_rng(number)
        client = Client(self.port, Tally())
        for turn in itertools.count(number):
            if self._stopped.is_set():
                break
            index = int(random.integers(len(self.images)))
            way = self._way(name, turn, index)
            client.tally = self.tallies.setdefault(way.name, Tally())
            await client.ask(way.request, partial(self._judge, way, index))
            await asyncio.sleep(random.exponential(self.count / self.rate))
        await client.close()

    def _way(self, name: str, turn: int, index: int) -> Way:
        """Half of the requests name no version; the others name each that is served in turn."""
        v2, native = self._bodies[index]
        kinds: list[Way] = []
        for version in self._pinned:
            path = f"/v2/models/{name}/versions/{version.version}/infer"
            kinds.append(Way(f"V2, {version.version}", post(path, v2), version.digest))
            tagged = post("/classify", native % f', "model": "{name}:{version.version}"'.encode())
            kinds.append(Way(f"/classify, {version.version}", tagged, version.digest))
        free = [
            Way("V2, no version", post(f"/v2/models/{name}/infer", v2), ""),
            Way("/classify, no version", post("/classify", native % f', "model": "{name}"'.encode()), ""),
            Way("/classify, no model", post("/classify", native % b""), ""),
        ]
        chosen = free if turn % 2 or not kinds else kinds
        return chosen[turn // 2 % len(chosen)]

    def _judge(self, way: Way, index: int, answer: Answer) -> str:
        """What is wrong with an answer: its digest, or that it is not what this digest computes."""
        told = json.loads(answer.body)
        if way.name.startswith("V2"):
            digest, version = told["parameters"]["digest"], told["model_version"]
            (output,) = told["outputs"]
            label, probability = int(np.argmax(output["data"])), max(output["data"])
        else:
            digest, version = told["model"]["digest"], told["model"]["version"]
            label, probability = (told["predictions"][0][key] for key in ("index", "probability"))
        if digest not in self._known or not digest.startswith(version):
            return f"digest {digest[:12]} of version {version} is not one that is served"
        if way.pinned and digest != way.pinned:
            return f"digest {digest[:12]} answered for {way.pinned[:12]}"
        if not way.pinned:
            self.answered[digest] += 1
            self.last[digest] = time.monotonic()
        row = self._known[digest][index]
        same = label == int(row.argmax()) and abs(probability - float(row[label])) < AGREEMENT
        return "" if same else f"class {label} with {probability:.6f} is not what {digest[:12]} computes"
