"""Samples that Metropolis-Hastings chooses: each one of its draws, by the discriminator better than what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.inference.bundle import load
from services.inference.chain import STEPS, STRIDE
from services.inference.generator import Generator
from services.inference.noise import latents

pytestmark = [pytest.mark.server, pytest.mark.slow]

GAN = "digits-gan"
SEED, COUNT = 8, 40
MANY = 200  # chains: how far each goes depends on the discriminator, and that on the processor that trained it


@pytest.fixture(scope="module")
def generator(model_store: Path) -> Generator:
    """The served GAN, without the service."""
    [manifest] = model_store.glob(f"models/{GAN}/*/manifest.json")
    return Generator(load(manifest.parent))


def chosen(client: httpx.Client, **fields: Any) -> httpx.Response:
    given = {"model": GAN, "seed": SEED, "count": COUNT, "format": "array", "sampler": "metropolis-hastings"}
    response = client.post("/generate", json=given | fields)
    assert response.status_code == 200, response.text
    return response


def images(response: httpx.Response) -> np.ndarray:
    return np.array(response.json()["images"], np.uint8)[:, None]


def draws(generator: Generator, items: range, labels: np.ndarray) -> np.ndarray:
    """What each chain proposes, [items, steps, 1, 28, 28]."""
    numbers = [item + step * STRIDE for item in items for step in range(STEPS)]
    noise = latents(SEED, numbers, generator.latent_size)
    drawn = generator.run("decode", {"latents": noise, "labels": np.repeat(labels, STEPS)})["images"]
    return drawn.reshape(len(items), STEPS, *drawn.shape[1:])


def ratios(generator: Generator, samples: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return generator.run("discriminate", {"images": samples, "labels": labels})["log_ratio"]


def test_each_sample_is_one_of_its_own_draws(client: httpx.Client, generator: Generator) -> None:
    labels = np.arange(MANY) % 10
    found = images(chosen(client, count=MANY))
    at = [
        [step for step in range(STEPS) if np.array_equal(drawn[step], sample)]
        for sample, drawn in zip(found, draws(generator, range(MANY), labels), strict=True)
    ]
    assert all(at), "a sample that was not drawn"
    assert len({steps[0] for steps in at}) > 5, "always the same step is chosen"


def test_the_discriminator_takes_them_for_more_real_than_the_priors(client: httpx.Client, generator: Generator) -> None:
    labels = np.arange(COUNT) % 10
    mean = [
        ratios(generator, images(chosen(client, sampler=sampler)), labels).mean()
        for sampler in ("prior", "metropolis-hastings")
    ]
    assert mean[1] > mean[0] + 0.1


@pytest.mark.parametrize("fields", [{}, {"class": "4"}, {"truncation": 0.7}, {"quality": True}], ids=str)
def test_the_same_request_gives_the_same_bytes(client: httpx.Client, fields: dict[str, Any]) -> None:
    first, again = (chosen(client, count=6, **fields) for _ in range(2))
    assert again.content == first.content
    assert images(first).tolist() == images(chosen(client, count=9, **fields))[:6].tolist()
    assert images(first).tolist() != images(chosen(client, count=6, seed=SEED + 1, **fields)).tolist()


def test_a_choice_is_of_the_class_asked_for(client: httpx.Client, generator: Generator) -> None:
    found = images(chosen(client, count=3, **{"class": "4"}))
    for sample, drawn in zip(found, draws(generator, range(3), np.full(3, 4)), strict=True):
        assert any(np.array_equal(each, sample) for each in drawn)


def test_a_model_without_discriminator_names_the_sampler(client: httpx.Client) -> None:
    given = {"model": "digits-vae", "sampler": "metropolis-hastings"}
    response = client.post("/generate", json=given)
    assert (response.status_code, response.json()["field"]) == (422, "sampler")
    assert "send prior" in response.json()["detail"]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("sampler", {"sampler": "gibbs"}),
        ("sampler", {"sampler": None}),
        (None, {"sampler": "metropolis-hastings", "min_quality": 0.5}),
        (None, {"sampler": "metropolis-hastings", "latents": [[0.0] * 32]}),
    ],
    ids=str,
)
def test_a_sampler_that_cannot_be_had_is_refused(
    client: httpx.Client, field: str | None, fields: dict[str, Any]
) -> None:
    response = client.post("/generate", json={"model": GAN} | fields)
    assert (response.status_code, response.json().get("field")) == (422, field)
