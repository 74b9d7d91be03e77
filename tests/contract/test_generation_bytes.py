"""The same model, seed, class and number: the same bytes, whoever draws them, with whom, kept or not, in any form."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from services.inference.noise import latents
from tests.conftest import ROOT, clean_environment

pytestmark = [pytest.mark.server, pytest.mark.slow]

GAN, VAE = "digits-gan", "digits-vae"
WIDTHS = {GAN: 32, VAE: 16}  # of their latents
SEED = 20
COUNTS = (1, 3, 16, 64)
NO_STORE = {"Cache-Control": "no-store"}
SOURCES: dict[str, dict[str, Any]] = {
    "VAE": {"model": VAE},
    "GAN, all classes": {"model": GAN},
    "GAN, one class": {"model": GAN, "class": "7"},
    "GAN, truncated": {"model": GAN, "class": 3, "truncation": 0.6},
    "GAN, chosen": {"model": GAN, "sampler": "metropolis-hastings"},
}


def ask(client: httpx.Client, fields: dict[str, Any], headers: dict[str, str] | None = NO_STORE) -> httpx.Response:
    response = client.post("/generate", json={"seed": SEED} | fields, headers=headers)
    assert response.status_code == 200, response.text
    return response


def arrays(client: httpx.Client, fields: dict[str, Any]) -> np.ndarray:
    return np.array(ask(client, fields | {"format": "array"}).json()["images"], np.uint8)


def opened(raw: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_few_samples_are_the_first_of_many(client: httpx.Client, source: dict[str, Any]) -> None:
    answers = {count: ask(client, source | {"count": count}).json() for count in COUNTS}
    many = answers[max(COUNTS)]
    assert len(set(many["images"])) > 1
    for count, answer in answers.items():
        assert answer["images"] == many["images"][:count]
        assert answer.get("labels") == (many["labels"][:count] if "labels" in many else None)


def test_a_class_in_turn_is_the_class_asked_for(client: httpx.Client) -> None:
    in_turn = ask(client, {"model": GAN, "count": 20}).json()
    for label in ("0", "7"):
        alone = ask(client, {"model": GAN, "count": 20, "class": label}).json()["images"]
        chosen = [i for i, drawn in enumerate(in_turn["labels"]) if drawn == label]
        assert chosen == [int(label), 10 + int(label)]
        assert [in_turn["images"][i] for i in chosen] == [alone[i] for i in chosen]


@pytest.fixture(scope="module")
def replicas(serve: Any) -> Iterator[list[httpx.Client]]:
    """Other processes, which share nothing with the first and batch otherwise."""
    settings: list[dict[str, str]] = [
        {"DUET_CACHE_MEMORY_BYTES": "0", "DUET_BATCH_ITEMS": "5", "DUET_THREADS": "1"},
        {"DUET_BATCH_ITEMS": "1000", "DUET_THREADS": "2", "DUET_FAST_LANE": "false"},
    ]
    with ExitStack() as stack:
        urls = [stack.enter_context(serve("generation", **own)).url for own in settings]
        yield [stack.enter_context(httpx.Client(base_url=url, timeout=60)) for url in urls]


@pytest.mark.parametrize("form", ["png", "array", "grid", "lines"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_replica_answers_with_the_same_bytes(
    client: httpx.Client, replicas: list[httpx.Client], source: dict[str, Any], form: str
) -> None:
    wish = {"stream": True} if form == "lines" else {"format": form}
    first, *others = [ask(each, source | wish | {"count": 70}).content for each in (client, *replicas)]
    assert others == [first] * len(others)


def test_the_bytes_are_the_same_beside_any_neighbours(client: httpx.Client) -> None:
    requests = [(source, count) for source in SOURCES.values() for count in COUNTS if "sampler" not in source]
    alone = [ask(client, source | {"count": count}).content for source, count in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda request: ask(client, request[0] | {"count": request[1]}).content, requests * 2))
    assert together == alone * 2


@pytest.mark.parametrize("tiers", [("memory",), ("redis",), ("memory", "redis")], ids="+".join)
def test_kept_samples_have_the_bytes_of_drawn_ones(
    client: httpx.Client, serve: Any, redis_server: Any, tiers: tuple[str, ...]
) -> None:
    settings = {"DUET_REDIS_ADMISSION": "always"}
    if "redis" in tiers:
        settings["DUET_REDIS_URL"] = redis_server.url
    if "memory" not in tiers:
        settings["DUET_CACHE_MEMORY_BYTES"] = "0"
    with serve("generation", **settings) as server, httpx.Client(base_url=server.url, timeout=60) as own:
        for seed, source in enumerate(SOURCES.values()):  # one each, or they would share samples
            few, more = (source | {"seed": seed, "count": count} for count in (8, 12))
            drawn, found = ask(client, few).content, ""
            first = ask(own, few, headers=None)
            assert (first.headers["x-cache"][:4], first.content) == ("miss", drawn)
            while not found.startswith("hit"):  # Redis is written to behind the answer
                answer = ask(own, few, headers=None)
                assert answer.content == drawn
                found = answer.headers["x-cache"]
            mixed = ask(own, more, headers=None)
            assert mixed.headers["x-cache"].startswith("partial")
            assert mixed.content == ask(client, more).content


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_form_shows_the_same_pixels(client: httpx.Client, source: dict[str, Any]) -> None:
    count = 10
    pixels = arrays(client, source | {"count": count})
    files = ask(client, source | {"count": count, "format": "png"}).json()["images"]
    assert np.array_equal(np.stack([opened(base64.b64decode(file)) for file in files]), pixels)
    sheet = opened(ask(client, source | {"count": count, "format": "grid"}).content)
    cells = [sheet[i // 4 * 29 : i // 4 * 29 + 28, i % 4 * 29 : i % 4 * 29 + 28] for i in range(count)]
    assert np.array_equal(np.stack(cells), pixels)


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
@pytest.mark.parametrize(
    ("source", "given"),
    [
        ({"model": VAE}, {"parameters": {"seed": SEED, "count": 6}}),
        ({"model": GAN}, {"parameters": {"seed": SEED, "count": 6}}),
        ({"model": GAN, "truncation": 0.6}, {"parameters": {"seed": SEED, "count": 6, "truncation": 0.6}}),
        ({"model": GAN, "class": "7"}, {"parameters": {"seed": SEED, "count": 6}, "labels": [7]}),
        ({"model": VAE}, {"latents": latents(SEED, range(6), WIDTHS[VAE])}),
        ({"model": GAN, "class": 7}, {"latents": latents(SEED, range(6), WIDTHS[GAN]), "labels": [7] * 6}),
    ],
    ids=["VAE by seed", "GAN by seed", "truncated", "one class", "VAE by latents", "GAN by latents"],
)
def test_v2_draws_what_the_native_route_draws(
    client: httpx.Client, source: dict[str, Any], given: dict[str, Any], binary: bool
) -> None:
    inputs = []
    if "latents" in given:
        noise = given["latents"]
        inputs.append({"name": "latents", "datatype": "FP32", "shape": noise.shape, "data": noise.ravel().tolist()})
    if "labels" in given:
        labels = given["labels"]
        inputs.append({"name": "labels", "datatype": "INT64", "shape": [len(labels)], "data": labels})
    outputs = [{"name": "images", "parameters": {"binary_data": binary}}]
    document = {"inputs": inputs, "outputs": outputs, "parameters": given.get("parameters", {})}
    answer = client.post(f"/v2/models/{source['model']}/infer", json=document, headers=NO_STORE)
    assert answer.status_code == 200, answer.text
    if binary:
        raw = answer.content[int(answer.headers["Inference-Header-Content-Length"]) :]
        images = np.frombuffer(raw, np.uint8)
    else:
        images = np.array(answer.json()["outputs"][0]["data"], np.uint8)
    assert np.array_equal(images.reshape(-1, 28, 28), arrays(client, source | {"count": 6}))


DRAW = """
import json, sys
from training.cli import app
for command in json.loads(sys.argv[1]):
    app(command, standalone_mode=False)
"""
HISTOGRAM = "a histogram"


@pytest.fixture(scope="module")
def drawn_offline(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files for each source, all drawn by `duet generate` in one process, and one for a histogram."""
    out = tmp_path_factory.mktemp("drawn")
    commands = []
    for name, source in SOURCES.items():
        options = ["--model", source["model"], "--truncation", str(source.get("truncation", 1.0))]
        options += ["--sampler", source.get("sampler", "prior")]
        options += ["--histogram", f"{source['class']}=12"] if "class" in source else ["--count", "12"]
        commands += [[*options, "--out", str(out / name / "npz"), "--format", "npz"]]
        commands += [[*options, "--out", str(out / name / "png")]]
    commands += [["--model", GAN, "--histogram", "7=3,2=2", "--format", "npz", "--out", str(out / HISTOGRAM)]]
    script = json.dumps([["generate", "--seed", str(SEED), *command] for command in commands])
    environment = clean_environment(BENTOML_HOME=str(model_store))
    run = subprocess.run(
        [sys.executable, "-c", DRAW, script], env=environment, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return out


@pytest.mark.parametrize("name", SOURCES)
def test_files_drawn_offline_hold_what_the_service_draws(client: httpx.Client, drawn_offline: Path, name: str) -> None:
    source, folder = SOURCES[name], drawn_offline / name
    pixels = arrays(client, source | {"count": 12})
    with np.load(folder / "npz" / "samples-00000.npz") as kept:
        assert np.array_equal(kept["images"][:, 0], pixels)
    files = sorted((folder / "png").rglob("*.png"), key=lambda path: path.name)
    assert np.array_equal(np.stack([opened(file.read_bytes()) for file in files]), pixels)
    answer = ask(client, source | {"count": 12}).json()
    assert json.loads((folder / "png" / "provenance.json").read_text())["digest"] == answer["model"]["digest"]
    if "labels" in answer:
        assert [file.parent.name for file in files] == answer["labels"]


def test_a_histogram_draws_each_number_as_its_class(client: httpx.Client, drawn_offline: Path) -> None:
    with np.load(drawn_offline / HISTOGRAM / "samples-00000.npz") as kept:
        images = kept["images"][:, 0]
    sevens, twos = (arrays(client, {"model": GAN, "count": 5, "class": label}) for label in ("7", "2"))
    assert np.array_equal(images, np.concatenate([sevens[:3], twos[3:]]))
