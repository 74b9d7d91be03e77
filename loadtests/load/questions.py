"""Requests to each route, and what must hold of their answers.

A wrong answer is a failure, not only a bad status: ranges and counts are checked, most pictures of a known class have
to be recognised, and the same question must get the same answer again, so that a batcher or a cache that mixes callers
up shows here.
"""

from __future__ import annotations

import json
import math
import random
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from loadtests.load.pictures import Pictures, fresh, pixels
from loadtests.load.service import Model

V2 = "/v2/models/{model}/infer"
JSON = {"Content-Type": "application/json"}
TOLERANCE = 5e-3  # of a number that is asked for again: another batch size may add up in another order
RECOGNISED = 0.5  # the share of pictures of a known class that must be recognised, of at least four


@dataclass(frozen=True)
class Question:
    """A POST, and what must hold of the body of a 200.

    Attributes:
        route: the path without the name of a model, under which it is counted.
        check: raises AssertionError, KeyError, TypeError or ValueError where the answer is wrong.
    """

    route: str
    path: str
    headers: dict[str, str]
    body: bytes
    check: Callable[[bytes], None]


@dataclass
class World:
    """What questions are made of.

    Attributes:
        models: the model that answers, by task.
        pictures: by task; those for classification also go to models that reconstruct.
        pool: how many different questions are asked repeatedly.
        zipf: exponent of their popularity; 0: all alike.
    """

    models: dict[str, Model]
    pictures: dict[str, Pictures]
    pool: int = 64
    zipf: float = 1.0
    _first: dict[tuple[str, int, int], tuple[Any, float]] = field(default_factory=dict)
    _ranks: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._ranks = list(accumulate(1 / rank**self.zipf for rank in range(1, self.pool + 1)))
        self.noise = np.random.default_rng()

    def popular(self) -> int:
        """A number below `pool`; the k-th has a share in proportion to k^-zipf (Zipf's law)."""
        return bisect(self._ranks, random.random() * self._ranks[-1])

    def texts(self, task: str, items: int, again: int | None) -> tuple[list[str], list[str | None]]:
        """Pictures in base64 and their labels; `again`: the same ones for the same number, else never sent before."""
        found = self.pictures[task]
        if again is not None:
            chosen = [(again * items + index) % len(found.files) for index in range(items)]
            return [found.text(index) for index in chosen], [found.labels[index] for index in chosen]
        chosen = [random.randrange(len(found.files)) for _ in range(items)]
        sent = Pictures([fresh(found.files[index], self.noise) for index in chosen], [], "")
        return [sent.text(index) for index in range(items)], [found.labels[index] for index in chosen]

    def same(self, route: str, items: int, again: int | None, answer: Any, number: float = 0.0) -> None:
        """The answer is what it was the first time."""
        if again is None:
            return
        first, before = self._first.setdefault((route, items, again), (answer, number))
        assert first == answer, f"question {again} was answered {short(first)} first and {short(answer)} now"
        assert math.isclose(before, number, abs_tol=TOLERANCE), f"question {again} got {before} first, {number} now"


def short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 60 else f"{text[:57]}..."


def native(route: str, fields: dict[str, Any], check: Callable[[Any], None]) -> Question:
    return Question(route, route, JSON, json.dumps(fields).encode(), lambda body: check(json.loads(body)))


def recognised(found: list[str], labels: list[str | None]) -> None:
    """Most pictures of a known class are recognised; one alone may be mistaken."""
    known = [(one, label) for one, label in zip(found, labels, strict=True) if label is not None]
    right = sum(one == label for one, label in known)
    assert len(known) < 4 or right >= RECOGNISED * len(known), f"{right} of {len(known)} pictures are recognised"


def classify(world: World, items: int, again: int | None) -> Question:
    model = world.models["classification"]
    images, labels = world.texts("classification", items, again)

    def check(answer: Any) -> None:
        predictions = answer["predictions"]
        assert len(predictions) == items, f"{len(predictions)} predictions for {items} images"
        for prediction in predictions:
            probabilities = [each["probability"] for each in prediction["top"]]
            assert probabilities == sorted(probabilities, reverse=True)
            assert math.isclose(sum(probabilities), 1, abs_tol=1e-3), f"probabilities sum to {sum(probabilities)}"
        found = [prediction["label"] for prediction in predictions]
        known = [label if label in model.labels else None for label in labels]
        recognised(found, known)
        world.same("/classify", items, again, found, sum(prediction["probability"] for prediction in predictions))

    return native("/classify", {"model": model.name, "images": images, "top_k": len(model.labels)}, check)


def score(world: World, items: int, again: int | None) -> Question:
    images, _ = world.texts("anomaly", items, again)
    maps = again is None

    def check(answer: Any) -> None:
        scores = answer["scores"]
        assert len(scores) == items, f"{len(scores)} scores for {items} images"
        for one in scores:
            assert answer["smallest_p_value"] <= one["p_value"] <= 1, f"p-value {one['p_value']}"
            assert one["anomalous"] == (one["p_value"] <= answer["alpha"])
            assert not maps or one["heatmap"]
        found = [one["anomalous"] for one in scores]
        world.same("/score", items, again, found, sum(one["p_value"] for one in scores))

    model = world.models["anomaly"].name
    return native("/score", {"model": model, "images": images} | ({"heatmap": True} if maps else {}), check)


def generate(world: World, items: int, again: int | None) -> Question:
    seed = random.getrandbits(31) if again is None else again

    def check(answer: Any) -> None:
        assert answer["seed"] == seed
        assert len(answer["images"]) == items, f"{len(answer['images'])} images, and {items} were asked for"
        world.same("/generate", items, again, answer["images"])

    model = world.models["generation"].name
    return native("/generate", {"model": model, "count": items, "seed": seed, "format": "png"}, check)


def grid(world: World, items: int, _: int | None) -> Question:
    def check(body: bytes) -> None:
        assert body.startswith(b"\x89PNG"), f"no PNG but {short(body)}"

    document = {"model": world.models["generation"].name, "count": items, "format": "grid"}
    return Question("/generate", "/generate", JSON, json.dumps(document).encode(), check)


def interpolate(world: World, items: int, again: int | None) -> Question:
    seeds = [random.getrandbits(31), random.getrandbits(31)] if again is None else [again, again + world.pool]
    steps = max(items, 2)

    def check(answer: Any) -> None:
        assert len(answer["images"]) == steps
        assert len(set(answer["images"])) > 1, "every step is the same image"
        world.same("/interpolate", items, again, answer["images"])

    model = world.models["generation"].name
    return native("/interpolate", {"model": model, "seeds": seeds, "steps": steps, "format": "png"}, check)


def reconstruct(world: World, items: int, again: int | None) -> Question:
    images, _ = world.texts("reconstruction", items, again)

    def check(answer: Any) -> None:
        assert len(answer["images"]) == items
        for error in answer["errors"]:
            assert 0 <= error < 0.25, f"squared error {error}: a grey image would do better"
        world.same("/reconstruct", items, again, answer["images"])

    return native("/reconstruct", {"model": world.models["reconstruction"].name, "images": images}, check)


def infer(task: str, world: World, items: int, again: int | None) -> Question:
    """Images as a binary tensor of V2, to the classifier or the scorer."""
    model, found = world.models[task], world.pictures[task]
    numbers = range(items) if again is None else range(again * items, (again + 1) * items)
    images = np.stack([pixels(found.files[number % len(found.files)], model.shape) for number in numbers])
    if again is None:
        images ^= world.noise.integers(0, 2, images.shape, dtype=np.uint8)
    output = {"classification": "probabilities", "anomaly": "p_value"}[task]
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    tensor["parameters"] = {"binary_data_size": images.nbytes}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": output}]}).encode()

    def check(body: bytes) -> None:
        (given,) = json.loads(body)["outputs"]
        values = np.array(given["data"]).reshape(given["shape"])
        assert given["name"] == output
        assert len(values) == items, f"{len(values)} rows for {items} images"
        if task == "classification":
            assert np.allclose(values.sum(axis=1), 1, atol=1e-3), f"probabilities sum to {values.sum(axis=1)}"
            answered, number = values.argmax(axis=1).tolist(), float(values.max(axis=1).sum())
        else:
            assert ((values > 0) & (values <= 1)).all(), f"p-values {values}"
            answered, number = None, float(values.sum())
        world.same(f"{V2} {task}", items, again, answered, number)

    fields = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Question(V2, f"/v2/models/{model.name}/infer", fields, head + images.tobytes(), check)


BY_ROUTE = {  # what a trace may name
    "/classify": ("classification", classify),
    "/score": ("anomaly", score),
    "/generate": ("generation", generate),
    "/interpolate": ("generation", interpolate),
    "/reconstruct": ("reconstruction", reconstruct),
}
