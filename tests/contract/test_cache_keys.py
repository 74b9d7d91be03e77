"""Which questions are the same to the cache, in whatever form they come, and which are others."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.inference.noise import latents
from tests.contract.questions import (
    CNN,
    GAN,
    HIT,
    MISS,
    NO_STORE,
    SCORER,
    VAE,
    Request,
    ask,
    exact,
    forms,
    generation,
    native,
    rows,
    seed,
    status,
    text,
    unseen,
    upload,
    v2,
    v2_generation,
)

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize(("path", "model"), [("/classify", CNN), ("/score", SCORER)])
@pytest.mark.parametrize("first", forms("", ""))
def test_the_same_pixels_are_the_same_question_in_every_form(
    client: httpx.Client, path: str, model: str, first: str
) -> None:
    images, ways = unseen(), forms(path, model)
    assert status(client, ways[first](images)) == MISS
    for name, make in ways.items():
        assert status(client, make(images)) == HIT, name


def test_the_same_pixels_are_the_same_question_to_an_encoder(client: httpx.Client) -> None:
    images = unseen()
    ways = {
        "files": upload("/reconstruct"),
        "base64": native("/reconstruct", text, format="array"),
        "pixels": native("/reconstruct", rows, format="grid"),
        "V2": v2(VAE, "FP32", lambda images: exact(images).tobytes(), outputs=[{"name": "images"}]),
    }
    assert status(client, ways["files"](images)) == "miss; hits=0/4"  # encoded, and decoded
    for name, make in ways.items():
        assert status(client, make(images)) == "hit; hits=4/4", name
    mean_alone = v2(VAE, "UINT8", lambda images: images.tobytes(), outputs=[{"name": "latents"}])
    assert status(client, mean_alone(images)) == HIT


def test_items_are_found_whatever_stands_beside_them(client: httpx.Client) -> None:
    images, make = unseen(6), native("/classify", rows)
    assert status(client, make(images[:4])) == "miss; hits=0/4"
    assert status(client, make(images[[5, 3, 0, 4, 3]])) == "partial; hits=3/5"
    assert status(client, make(images[::-1])) == "hit; hits=6/6"


def test_a_default_given_is_a_default_left_out(client: httpx.Client) -> None:
    images, number = unseen(), seed()
    same: list[list[Request]] = [
        [
            native("/classify", rows)(images),
            native("/classify", rows, top_k=3, model=CNN)(images),
            native("/classify", rows, top_k=10, explanation=None)(images),
            upload("/classify", top_k="1")(images),
        ],
        [native("/score", rows)(images), native("/score", rows, alpha=0.05, heatmap=False, model=SCORER)(images)],
        [
            generation(seed=number, model=GAN, count=16),
            generation(seed=number, model=GAN),
            generation(seed=number, model=GAN, truncation=1.0, format="png", **{"class": None}),
            generation(seed=number, model=GAN, truncation=1, format="grid"),
            v2_generation(GAN, {}, seed=number, count=16),
            v2_generation(GAN, {"seed": [number], "count": [16]}, truncation=1.0),
            v2_generation(GAN, {"labels": [n % 10 for n in range(16)]}, seed=number),
        ],
        [
            ("/interpolate", {"json": {"seeds": [number, number + 1], "model": VAE}}),
            ("/interpolate", {"json": {"seeds": [number, number + 1], "model": VAE, "steps": 8, "path": "spherical"}}),
        ],
    ]
    for requests in same:
        assert status(client, requests[0]).startswith("miss")
        for request in requests:
            assert status(client, request).startswith("hit"), request


def test_latents_are_what_is_looked_up_however_they_came(client: httpx.Client) -> None:
    number = seed()
    assert status(client, generation(seed=number, count=2, model=VAE)) == MISS
    metadata = client.get(f"/v2/models/{VAE}").json()
    [size] = [tensor["shape"][1] for tensor in metadata["inputs"] if tensor["name"] == "latents"]
    noise = latents(number, range(2), size)
    tensor = {"name": "latents", "datatype": "FP32", "shape": list(noise.shape), "data": noise.ravel().tolist()}
    assert status(client, (f"/v2/models/{VAE}/infer", {"json": {"inputs": [tensor]}})) == HIT


def differing(client: httpx.Client, known: Request, *others: Request) -> None:
    """Every other question is none that was asked before, and gets an answer of its own, the computed one."""
    first = ask(client, known)
    assert ask(client, known).headers["x-cache"].startswith("hit")
    for other in others:
        computed = ask(client, other, NO_STORE)
        answer = ask(client, other)
        assert answer.headers["x-cache"].startswith("miss"), other
        assert answer.content == computed.content
        assert answer.content != first.content


def test_one_pixel_is_another_question(client: httpx.Client) -> None:
    image = unseen(1)
    others = []
    for at in (0, 391, 783):
        changed = image.copy()
        changed.ravel()[at] ^= 1
        others.append(changed)
    others.append(image[..., ::-1].copy())
    others.append(image.transpose(0, 1, 3, 2).copy())
    everything = [{"name": "logits"}]
    make = v2(CNN, "UINT8", lambda images: images.ravel().tolist(), outputs=everything)
    differing(client, make(image), *map(make, others))
    make = native("/score", rows, heatmap=True)
    differing(client, make(image), *map(make, others))


def test_every_parameter_of_a_drawing_counts(client: httpx.Client) -> None:
    number = seed()
    known = {"seed": number, "count": 1, "class": 3, "model": GAN, "truncation": 0.8}
    changes: list[dict[str, Any]] = [
        {"seed": number + 1},
        {"class": 4},
        {"class": None},  # all in turn, from the first
        {"truncation": 0.6},
        {"model": VAE, "class": None},
    ]
    differing(client, generation(**known), *(generation(**(known | change)) for change in changes))
    slightly = known | {"truncation": 0.8000001}  # other latents, though the pixels may be the same
    assert status(client, generation(**slightly)).startswith("miss")
    walk = {"seeds": [number, number + 1], "steps": 3, "model": VAE}
    walks: list[dict[str, Any]] = [{"seeds": [number + 1, number + 2]}, {"path": "linear"}, {"steps": 4}]
    requests = [("/interpolate", {"json": walk | change}) for change in walks]
    first = ask(client, ("/interpolate", {"json": walk}))
    for request in requests:  # ends and middles may be known, but no answer is another's
        computed, answer = ask(client, request, NO_STORE), ask(client, request)
        assert not answer.headers["x-cache"].startswith("hit")
        assert answer.content == computed.content != first.content


def test_each_sample_of_a_seed_is_its_own(client: httpx.Client) -> None:
    answer = ask(client, generation(seed=seed(), count=5, model=VAE, format="array"))
    assert len({json.dumps(image) for image in answer.json()["images"]}) == 5
    assert answer.headers["x-cache"] == "miss; hits=0/5"


def test_another_operation_on_the_same_pixels_is_another_question(client: httpx.Client) -> None:
    images = unseen()
    assert status(client, native("/classify", rows)(images)) == MISS
    assert status(client, native("/score", rows)(images)) == MISS
    mapped = ask(client, native("/score", rows, heatmap=True)(images))
    assert mapped.headers["x-cache"] == MISS
    assert all(score["heatmap"] for score in mapped.json()["scores"])
    assert status(client, native("/reconstruct", rows)(images)) == "miss; hits=0/4"
    explained = ask(client, native("/classify", rows, explanation="class_activation")(images))
    assert explained.headers["x-cache"] == MISS


def test_an_explanation_is_of_one_class(client: httpx.Client) -> None:
    image = unseen(1)
    make = {label: native("/classify", rows, explanation="occlusion", explain_class=label) for label in (3, "3", 4)}
    first = ask(client, make[3](image))
    assert first.headers["x-cache"] == "miss; hits=0/2"
    assert status(client, make["3"](image)) == "hit; hits=2/2"  # by name
    other = ask(client, make[4](image))
    assert other.headers["x-cache"] == "partial; hits=1/2"  # classified already, but not explained
    assert other.content == ask(client, make[4](image), NO_STORE).content != first.content
    best = first.json()["predictions"][0]["index"]
    unnamed = native("/classify", rows, explanation="occlusion")(image)
    ask(client, unnamed)
    assert status(client, native("/classify", rows, explanation="occlusion", explain_class=best)(image)) == HIT
