"""A bundle with a prior of its own: the same latents and the same images by every way that leads to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from services.inference.bundle import load
from services.inference.generator import Generator
from services.inference.noise import latents
from tests.conftest import ROOT, clean_environment

pytestmark = [pytest.mark.server, pytest.mark.slow]

NAME, SEED, COUNT = "mnist-cvae", 5, 12
BUNDLE = ROOT / "services" / "reference" / NAME


@pytest.fixture(scope="module")
def client(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    store = [sys.executable, "-m", "training", "models", "import", str(BUNDLE)]
    subprocess.run(
        store, check=True, env=clean_environment(BENTOML_HOME=str(home)), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    with serve("generation", home=home) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def drawn(client: httpx.Client, route: str = "/generate", **fields: Any) -> np.ndarray:
    response = client.post(route, json={"model": NAME, "format": "array"} | fields)
    assert response.status_code == 200, response.text
    return np.array(response.json()["images"], np.uint8)


def test_seed_latents_and_v2_agree(client: httpx.Client) -> None:
    labels = np.arange(COUNT) % 10
    generator = Generator(load(BUNDLE))
    z = generator.latents(latents(SEED, range(COUNT), generator.latent_size), labels)
    expected = generator.run("decode", {"latents": z, "labels": labels})["images"][:, 0]
    np.testing.assert_array_equal(drawn(client, seed=SEED, count=COUNT), expected)
    np.testing.assert_array_equal(drawn(client, latents=z.tolist()), expected)
    inputs = [{"name": "labels", "datatype": "INT64", "shape": [COUNT], "data": labels.tolist()}]
    wanted = [{"name": "images"}, {"name": "latents"}]
    body = {"inputs": inputs, "outputs": wanted, "parameters": {"seed": SEED}}
    outputs = client.post(f"/v2/models/{NAME}/infer", json=body).json()["outputs"]
    answer = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in outputs}
    np.testing.assert_array_equal(answer["images"].reshape(expected.shape), expected)
    np.testing.assert_array_equal(answer["latents"].astype(np.float32), z)


def test_a_walk_between_seeds_begins_and_ends_with_their_samples(client: httpx.Client) -> None:
    walk = drawn(client, "/interpolate", seeds=[SEED, SEED + 1], steps=5, **{"class": "3"})
    for end, seed in ((0, SEED), (-1, SEED + 1)):
        [sample] = drawn(client, seed=seed, count=1, **{"class": "3"})
        np.testing.assert_allclose(walk[end].astype(int), sample.astype(int), atol=1)  # the sines round


def test_truncation_draws_nearer_to_the_middle_of_the_class(client: httpx.Client) -> None:
    near, far = (drawn(client, seed=SEED, count=30, truncation=t, **{"class": "3"}) for t in (0.1, 1.0))
    assert near.std(axis=0).mean() < 0.5 * far.std(axis=0).mean()
