"""Samples: the same from the same source however they are asked for, judged on request, and drawn again if need be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from services.inference.noise import latents
from tests.contract.conftest import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

GAN = "digits-gan"
WIDTH = 32  # latent size of the demo's GAN


def generate(server: Server, **fields: Any) -> Any:
    response = server.client.post("/generate", json={"model": GAN, "format": "array", **fields})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("truncation", [1.0, 0.5])
def test_a_callers_latents_draw_what_their_seed_draws(server: Server, truncation: float) -> None:
    noise = latents(11, range(5), WIDTH, truncation=truncation)
    given = generate(server, latents=noise.tolist())
    assert given["images"] == generate(server, seed=11, count=5, truncation=truncation)["images"]
    assert "seed" not in given
    assert given["labels"] == ["0", "1", "2", "3", "4"]


def test_latents_draw_the_same_by_v2(server: Server) -> None:
    noise = latents(12, range(3), WIDTH)
    tensor = InferInput("latents", noise.shape, "FP32")
    tensor.set_data_from_numpy(noise)
    client = InferenceServerClient(server.url.removeprefix("http://"))
    images = client.infer(GAN, [tensor]).as_numpy("images")
    client.close()
    assert images[:, 0].tolist() == generate(server, latents=noise.tolist())["images"]


def test_interpolation_between_latents_is_that_between_their_seeds(server: Server) -> None:
    ends = np.concatenate([latents(seed, [0], WIDTH) for seed in (3, 4)])
    walks = [
        server.client.post("/interpolate", json={"model": GAN, "steps": 5, "class": "8", "format": "array", **given})
        for given in ({"seeds": [3, 4]}, {"latents": ends.tolist()})
    ]
    assert walks[0].status_code == walks[1].status_code == 200
    assert walks[0].json()["images"] == walks[1].json()["images"]


def test_quality_is_what_classifier_and_scorer_say_of_the_images(server: Server) -> None:
    drawn = generate(server, seed=5, count=12, quality=True)
    classified = server.client.post("/classify", json={"images": drawn["images"], "top_k": 10}).json()["predictions"]
    scored = server.client.post("/score", json={"images": drawn["images"]}).json()["scores"]
    for label, quality, prediction, score in zip(drawn["labels"], drawn["quality"], classified, scored, strict=True):
        assert quality["label"] == prediction["label"]
        [wanted] = [one["probability"] for one in prediction["top"] if one["label"] == label]
        assert quality["probability"] == pytest.approx(wanted, abs=1e-5)
        assert quality["p_value"] == pytest.approx(score["p_value"])
        assert quality["draws"] == 1
        assert "accepted" not in quality
    assert drawn["images"] == generate(server, seed=5, count=12)["images"]


def test_min_quality_draws_again_what_is_below_and_nothing_else(server: Server) -> None:
    plain = generate(server, seed=21, count=64, quality=True)
    bar = float(np.quantile([quality["probability"] for quality in plain["quality"]], 0.25))
    better = generate(server, seed=21, count=64, min_quality=bar)
    again = [i for i, quality in enumerate(better["quality"]) if quality["draws"] > 1]
    below = [i for i, quality in enumerate(plain["quality"]) if quality["probability"] < bar]
    assert again == below
    assert 0 < len(below) <= 16
    for i, (old, new) in enumerate(zip(plain["quality"], better["quality"], strict=True)):
        assert new["probability"] >= old["probability"]
        assert new["accepted"] == (new["probability"] >= bar)
        if i not in below:
            assert better["images"][i] == plain["images"][i]
    assert sum(quality["accepted"] for quality in better["quality"]) > 60
    uncached = server.client.post(
        "/generate",
        json={"model": GAN, "format": "array", "seed": 21, "count": 64, "min_quality": bar},
        headers={"Cache-Control": "no-store"},
    )
    assert uncached.json() == better


def test_an_unreachable_quality_ends_after_eight_draws(server: Server) -> None:
    hopeless = generate(server, seed=2, count=2, min_quality=0.9999999999)
    assert [quality["draws"] for quality in hopeless["quality"]] == [8, 8]
    assert [quality["accepted"] for quality in hopeless["quality"]] == [False, False]


def test_unconditional_samples_are_judged_by_their_likeliest_class(server: Server) -> None:
    drawn = generate(server, model="digits-vae", seed=1, count=4, min_quality=0.5)
    assert "labels" not in drawn
    assert all(0 < quality["probability"] <= 1 for quality in drawn["quality"])


def test_a_service_without_a_classifier_says_so(serve: Any) -> None:
    with serve("generation") as alone:
        response = httpx.post(f"{alone.url}/generate", json={"model": GAN, "quality": True})
    assert response.status_code == 422
    assert response.json()["field"] == "quality"
    assert "all-in-one" in response.json()["detail"]


GOOD = [[0.0] * WIDTH]
BAD: dict[str, tuple[str, int, str | None, dict[str, Any]]] = {
    "latents too short": ("/generate", 422, "latents[1]", {"latents": [[0.0] * WIDTH, [0.0]]}),
    "latents too long": ("/generate", 422, "latents[0]", {"latents": [[0.0] * (WIDTH + 1)]}),
    "latents beyond float32": ("/generate", 422, "latents[0]", {"latents": [[1e39] + [0.0] * (WIDTH - 1)]}),
    "latents as text": ("/generate", 422, "latents[0][0]", {"latents": [["1"] * WIDTH]}),
    "latents flat": ("/generate", 422, "latents[0]", {"latents": [0.0] * WIDTH}),
    "no latents": ("/generate", 422, "latents", {"latents": []}),
    "too many latents": ("/generate", 413, "latents", {"latents": GOOD * 257}),
    "latents and a seed": ("/generate", 422, None, {"latents": GOOD, "seed": 1}),
    "latents and a count": ("/generate", 422, None, {"latents": GOOD, "count": 1}),
    "latents and a truncation": ("/generate", 422, None, {"latents": GOOD, "truncation": 0.5}),
    "latents and a quality to reach": ("/generate", 422, None, {"latents": GOOD, "min_quality": 0.5}),
    "quality as text": ("/generate", 422, "quality", {"quality": "yes"}),
    "min_quality 0": ("/generate", 422, "min_quality", {"min_quality": 0}),
    "min_quality 1": ("/generate", 422, "min_quality", {"min_quality": 1}),
    "ends of wrong length": ("/interpolate", 422, "latents[1]", {"latents": [[0.0] * WIDTH, [0.0]]}),
    "ends beyond float32": ("/interpolate", 422, "latents[1]", {"latents": [GOOD[0], [-1e39] + [0.0] * (WIDTH - 1)]}),
    "a walk of an unknown class": ("/interpolate", 422, "class", {"seeds": [1, 2], "class": "cat"}),
    "a walk of a class out of range": ("/interpolate", 422, "class", {"seeds": [1, 2], "class": 10}),
    "one end": ("/interpolate", 422, "latents", {"latents": GOOD}),
    "ends twice": ("/interpolate", 422, None, {"latents": GOOD * 2, "seeds": [1, 2]}),
    "redraw without encoder": ("/redraw", 404, "model", {"images": [[[0] * 28] * 28]}),
    "redraw without classes": ("/redraw", 422, "model", {"images": [[[0] * 28] * 28], "model": "digits-vae"}),
    "reconstruct as a class without classes": (
        *("/reconstruct", 422, "class"),
        {"images": [[[0] * 28] * 28], "class": "1", "model": "digits-vae"},
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(server: Server, case: tuple[str, int, str | None, dict[str, Any]]) -> None:
    route, status, field, fields = case
    response = server.client.post(route, json={"model": GAN, **fields})
    assert (response.status_code, response.json().get("field")) == (status, field), response.text
    assert server.surprises() == 0


@pytest.mark.parametrize("route", ["/generate", "/interpolate"])
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused(server: Server, route: str, number: bytes) -> None:
    good, bad = (b"[" + first + b", 0" * (WIDTH - 1) + b"]" for first in (b"0", number))
    body = b'{"model": "digits-gan", "latents": [' + good + b", " + bad + b"]}"
    response = server.client.post(route, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json().get("field")) == (422, "latents[1]"), response.text


def test_an_answer_draws_no_more_pixels_than_allowed(serve: Any) -> None:
    def v2(count: int) -> tuple[str, dict[str, Any]]:
        return f"/v2/models/{GAN}/infer", {"parameters": {"count": count}}

    ways: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
        "count": lambda count: ("/generate", {"count": count}),
        "latents": lambda count: ("/generate", {"model": GAN, "latents": GOOD * count}),
        "steps": lambda count: ("/interpolate", {"seeds": [1, 2], "steps": count, "format": "grid"}),
    }
    with serve("generation", DUET_IMAGE_PIXELS=str(10 * 28 * 28)) as own:
        for field, way in [*ways.items(), ("count", v2)]:
            for count, status in ((10, 200), (11, 413)):
                path, body = way(count)
                response = httpx.post(own.url + path, json=body)
                assert response.status_code == status, response.text[:300]
            assert response.json()["field"] == field
            assert "at most 10 such images (7840 pixels)" in response.json()["detail"]
        assert httpx.post(f"{own.url}/generate", json={"count": 11, "stream": True}).status_code == 200
