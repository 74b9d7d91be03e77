"""Load on the three services, with the held-out digits of scikit-learn.

Real images, because the classifier's certainty, the anomaly scores and the cache's hits all depend on what is sent;
and these ones, because they come with a package and no model has been trained on them.

    HOST="--host http://localhost:3000"
    locust -f loadtests/locustfile.py $HOST                                         a page on port 8089
    locust -f loadtests/locustfile.py $HOST --headless -u 20 -r 20 -t 60s           a table; exit code 1 on failures
    locust -f loadtests/locustfile.py $HOST ClassificationUser                      one service's users only
    locust -f loadtests/locustfile.py $HOST --tags repeated                         what a cache may answer
    locust -f loadtests/locustfile.py $HOST --tags fresh                            what no cache can answer

A user sends ten requests a second unless the server is slower, so -u 20 offers 200 requests a second.

A wrong answer is a failure, not only a bad status: ranges and counts are checked, most held-out digits have to be
recognised, and the same question must get the same answer again, so that a batcher or a cache that mixes callers up
shows here.
"""

import base64
import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from locust import FastHttpUser, constant_throughput, tag, task
from locust.env import Environment
from PIL import Image

from training.data.digits import load_digits

TEST = load_digits().test
assert TEST.labels is not None
LABELS = [str(label) for label in TEST.labels]
POOL = 64  # repeated questions to choose from
SEEN: dict[tuple[str, int], tuple[Any, float]] = {}  # the first answer to each repeated question


def png(image: np.ndarray) -> str:
    """A grey image, uint8 [H,W], as base64 of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


DIGITS = [png(image[0]) for image in TEST.images]


def fresh(index: int) -> str:
    """A digit that was never sent before: its lowest bits are noise."""
    noise = np.random.default_rng().integers(0, 2, TEST.images[index, 0].shape, dtype=np.uint8)
    return png(TEST.images[index, 0] ^ noise)


def same_again(route: str, question: int, answer: Any, number: float = 0.0) -> None:
    """The last bits of `number` may differ: another batch size may add up in another order."""
    first, before = SEEN.setdefault((route, question), (answer, number))
    assert first == answer, f"{route}: question {question} was answered {short(first)} first and {short(answer)} now"
    assert math.isclose(before, number, abs_tol=5e-3), f"{route}: question {question} got {before} first, {number} now"


def short(answer: Any) -> str:
    text = repr(answer)
    return text if len(text) <= 60 else f"{text[:57]}..."


class DuetUser(FastHttpUser):
    abstract = True
    wait_time = constant_throughput(10)

    def __init__(self, environment: Environment) -> None:
        self.host = (environment.host or self.host or "").rstrip("/")  # else the routes begin with two slashes
        super().__init__(environment)

    @contextmanager
    def ask(self, route: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """The JSON answer; an assertion or a missing key in the block makes the request a failure."""
        with self.rest("POST", route, json=fields, name=route) as response:
            assert response.status_code == 200, f"{route}: {response.status_code} {response.text}"
            yield response.js


class ClassificationUser(DuetUser):
    @tag("repeated")
    @task(3)
    def classify_again(self) -> None:
        index = random.randrange(POOL)
        with self.ask("/classify", images=[DIGITS[index]], top_k=10) as answer:
            (prediction,) = answer["predictions"]
            probabilities = [each["probability"] for each in prediction["top"]]
            assert probabilities == sorted(probabilities, reverse=True)
            assert math.isclose(sum(probabilities), 1, abs_tol=1e-3), f"probabilities sum to {sum(probabilities)}"
            same_again("/classify", index, prediction["label"], prediction["probability"])

    @tag("fresh")
    @task(1)
    def classify_batch(self) -> None:
        indices = random.sample(range(len(DIGITS)), 8)
        with self.ask("/classify", images=[fresh(index) for index in indices]) as answer:
            labels = [prediction["label"] for prediction in answer["predictions"]]
            right = sum(label == LABELS[index] for label, index in zip(labels, indices, strict=True))
            assert right >= 4, f"{right} of 8 held-out digits are recognised: {labels}"


class GenerationUser(DuetUser):
    @tag("repeated")
    @task(3)
    def generate_again(self) -> None:
        seed = random.randrange(POOL)
        with self.ask("/generate", count=4, seed=seed, format="png") as answer:
            assert answer["seed"] == seed
            assert len(answer["images"]) == 4
            same_again("/generate", seed, answer["images"])

    @tag("fresh")
    @task(1)
    def generate(self) -> None:
        with self.client.post("/generate", json={"format": "grid"}, name="/generate", catch_response=True) as response:
            if response.status_code == 200 and not response.content.startswith(b"\x89PNG"):
                response.failure(f"/generate: no PNG but {short(response.content)}")

    @tag("fresh")
    @task(1)
    def interpolate(self) -> None:
        seeds = [random.getrandbits(31), random.getrandbits(31)]
        with self.ask("/interpolate", seeds=seeds, steps=4, format="png") as answer:
            assert len(set(answer["images"])) > 1, "every step is the same image"
            assert len(answer["images"]) == 4

    @tag("repeated")
    @task(1)
    def reconstruct(self) -> None:
        index = random.randrange(POOL)
        with self.ask("/reconstruct", images=[DIGITS[index]]) as answer:
            (error,) = answer["errors"]
            assert 0 <= error < 0.25, f"squared error {error}: a grey image would do better"
            assert len(answer["images"]) == 1


class AnomalyUser(DuetUser):
    @tag("repeated")
    @task(3)
    def score_again(self) -> None:
        index = random.randrange(POOL)
        with self.ask("/score", images=[DIGITS[index]]) as answer:
            (score,) = answer["scores"]
            check(score, answer)
            same_again("/score", index, score["anomalous"], score["p_value"])

    @tag("fresh")
    @task(1)
    def score_batch(self) -> None:
        indices = random.sample(range(len(DIGITS)), 8)
        with self.ask("/score", images=[fresh(index) for index in indices], heatmap=True) as answer:
            assert len(answer["scores"]) == 8
            for score in answer["scores"]:
                check(score, answer)
                assert score["heatmap"]


def check(score: dict[str, Any], answer: dict[str, Any]) -> None:
    assert answer["smallest_p_value"] <= score["p_value"] <= 1, f"p-value {score['p_value']}"
    assert score["anomalous"] == (score["p_value"] <= answer["alpha"])
