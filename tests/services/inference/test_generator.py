"""The prior of the reference conditional VAEs, as an install has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import load
from services.inference.generator import Generator
from services.inference.noise import latents

REFERENCE = Path(__file__).parents[3] / "services" / "reference"
LABELS = np.arange(20, dtype=np.int64) % 10


@pytest.fixture(scope="module", params=["mnist-cvae", "fashion-mnist-cvae"])
def vae(request: pytest.FixtureRequest) -> Generator:
    return Generator(load(REFERENCE / request.param))


def test_latents_are_of_their_class(vae: Generator) -> None:
    noise = latents(3, range(20), vae.latent_size)
    drawn = vae.latents(noise, LABELS)
    assert drawn.dtype == np.float32
    centres = vae.latents(np.zeros_like(noise), LABELS)
    np.testing.assert_array_equal(centres[:10], centres[10:])
    assert len({row.tobytes() for row in centres}) == 10
    assert not np.array_equal(vae.latents(noise, np.roll(LABELS, 1)), drawn)


def test_a_latent_does_not_depend_on_what_else_is_drawn(vae: Generator) -> None:
    noise = latents(3, range(20), vae.latent_size)
    whole = vae.latents(noise, LABELS)
    assert vae.latents(noise[7:8], LABELS[7:8]).tobytes() == whole[7:8].tobytes()
    assert vae.latents(noise[5:], LABELS[5:]).tobytes() == whole[5:].tobytes()


def test_the_prior_is_no_operation_of_its_own(vae: Generator) -> None:
    assert vae.operations == ("decode", "encode")


def test_without_a_prior_noise_is_what_is_decoded() -> None:
    gan = Generator(load(REFERENCE / "mnist-gan"))
    noise = latents(3, range(2), gan.latent_size)
    assert gan.latents(noise, LABELS[:2]) is noise
