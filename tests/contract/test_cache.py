"""Answers from the cache, over HTTP: hits wherever the question is the same, and the same bytes as computed ones."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from services.inference.noise import latents

pytestmark = [pytest.mark.server, pytest.mark.slow]

Request = tuple[str, dict[str, Any]]  # path, and httpx's options
Make = Callable[[np.ndarray], Request]

CNN, SCORER, VAE, GAN = "digits-cnn", "digits-scorer", "digits-vae", "digits-gan"
NO_STORE = {"Cache-Control": "no-store"}
HIT, MISS = "hit; hits=2/2", "miss; hits=0/2"


@pytest.fixture(scope="module")
def client(allinone_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=allinone_url, timeout=60) as client:
        yield client


def ask(client: httpx.Client, request: Request, headers: Any = ()) -> httpx.Response:
    path, options = request
    options = dict(options)
    given = [*options.pop("headers", {}).items(), *(headers.items() if isinstance(headers, dict) else headers)]
    response = client.post(path, headers=given, **options)
    assert response.status_code == 200, response.text
    return response


def status(client: httpx.Client, request: Request) -> str:
    return str(ask(client, request).headers["x-cache"])


def unseen(count: int = 2) -> np.ndarray:
    """Images uint8 [count,1,28,28] that no cache knows."""
    return np.random.default_rng().integers(0, 256, (count, 1, 28, 28), np.uint8)


def seed() -> int:
    """A seed that nobody has used."""
    return int(np.random.default_rng().integers(0, 2**62))


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "PNG")
    return stream.getvalue()


def text(image: np.ndarray) -> str:
    return base64.b64encode(png(image)).decode()


def upload(path: str, **fields: str) -> Make:
    def make(images: np.ndarray) -> Request:
        files = [("images", (f"{i}.png", png(image), "image/png")) for i, image in enumerate(images)]
        return path, {"files": files, "data": fields}

    return make


def native(path: str, form: Callable[[np.ndarray], Any], **fields: Any) -> Make:
    return lambda images: (path, {"json": {"images": [form(image) for image in images]} | fields})


def rows(image: np.ndarray) -> list[Any]:
    return list(image[0].tolist())


def v2(model: str, kind: str, encode: Callable[[np.ndarray], Any], **document: Any) -> Make:
    """JSON where `encode` gives a list, a binary tensor where it gives bytes."""

    def make(images: np.ndarray) -> Request:
        data = encode(images)
        shape = [len(images)] if kind == "BYTES" else list(images.shape)
        tensor = {"name": "images", "datatype": kind, "shape": shape}
        path = f"/v2/models/{model}/infer"
        if isinstance(data, list):
            return path, {"json": {"inputs": [tensor | {"data": data}]} | document}
        tensor["parameters"] = {"binary_data_size": len(data)}
        head = json.dumps({"inputs": [tensor]} | document).encode()
        return path, {"content": head + data, "headers": {"Inference-Header-Content-Length": str(len(head))}}

    return make


def exact(images: np.ndarray) -> np.ndarray:
    """FP32, exactly k/255."""
    return (images / np.float32(255)).astype(np.float32)


def prefixed(images: np.ndarray) -> bytes:
    return b"".join(len(png(image)).to_bytes(4, "little") + png(image) for image in images)


def forms(path: str, model: str) -> dict[str, Make]:
    """Every way in which images reach a model."""
    return {
        "PNG upload": upload(path),
        "base64 PNG": native(path, text, model=model),
        "JSON pixels": native(path, rows, model=model),
        "V2 UINT8 binary": v2(model, "UINT8", lambda images: images.tobytes()),
        "V2 UINT8 JSON": v2(model, "UINT8", lambda images: images.ravel().tolist()),
        "V2 FP32 binary": v2(model, "FP32", lambda images: exact(images).tobytes()),
        "V2 FP32 JSON": v2(model, "FP32", lambda images: exact(images).ravel().tolist()),
        "V2 BYTES binary": v2(model, "BYTES", prefixed),
        "V2 BYTES JSON": v2(model, "BYTES", lambda images: [text(image) for image in images]),
    }


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


def generation(**fields: Any) -> Request:
    return "/generate", {"json": fields}


def v2_generation(model: str, inputs: dict[str, list[int]], **parameters: Any) -> Request:
    tensors = [{"name": name, "datatype": "INT64", "shape": [len(data)], "data": data} for name, data in inputs.items()]
    return f"/v2/models/{model}/infer", {"json": {"inputs": tensors, "parameters": parameters}}


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


QUESTIONS: dict[str, Callable[[], Request]] = {
    "classify": lambda: native("/classify", rows, top_k=10)(unseen()),
    "classify files": lambda: upload("/classify")(unseen()),
    "class activation": lambda: native("/classify", rows, explanation="class_activation")(unseen()),
    "occlusion": lambda: native("/classify", rows, explanation="occlusion")(unseen(1)),
    "score": lambda: native("/score", rows)(unseen()),
    "score with a map": lambda: native("/score", text, heatmap=True)(unseen()),
    "generate": lambda: generation(seed=seed(), count=3),
    "generate arrays of a class": lambda: generation(
        seed=seed(), count=3, model=GAN, format="array", truncation=0.7, **{"class": 3}
    ),
    "generate a grid": lambda: generation(seed=seed(), count=3, format="grid"),
    "interpolate": lambda: ("/interpolate", {"json": {"seeds": [seed(), seed()], "steps": 3}}),
    "interpolate a grid": lambda: ("/interpolate", {"json": {"seeds": [seed(), 7], "steps": 3, "format": "grid"}}),
    "interpolate images": lambda: native("/interpolate", text, steps=3)(unseen()),
    "reconstruct": lambda: native("/reconstruct", rows)(unseen()),
    "reconstruct a grid": lambda: native("/reconstruct", rows, format="grid")(unseen()),
    "V2 classify": lambda: v2(CNN, "UINT8", lambda images: images.ravel().tolist())(unseen()),
    "V2 classify, all outputs, binary": lambda: v2(
        CNN,
        "FP32",
        lambda images: exact(images).tobytes(),
        outputs=[{"name": name, "parameters": {"binary_data": True}} for name in ("logits", "label", "probabilities")],
    )(unseen()),
    "V2 ranked": lambda: v2(
        CNN, "BYTES", prefixed, outputs=[{"name": "probabilities", "parameters": {"classification": 4}}]
    )(unseen()),
    "V2 score": lambda: v2(SCORER, "UINT8", lambda images: images.ravel().tolist())(unseen()),
    "V2 score with a map, binary": lambda: v2(
        SCORER,
        "UINT8",
        lambda images: images.tobytes(),
        outputs=[{"name": "residual"}, {"name": "score"}],
        parameters={"binary_data_output": True},
    )(unseen()),
    "V2 generate": lambda: v2_generation(VAE, {}, seed=seed(), count=3),
    "V2 generate, binary": lambda: v2_generation(GAN, {"seed": [seed()]}, count=3, binary_data_output=True),
    "V2 redraw": lambda: v2(VAE, "UINT8", lambda images: images.tobytes())(unseen()),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_cached_answer_has_the_bytes_of_a_computed_one(client: httpx.Client, name: str) -> None:
    question = QUESTIONS[name]()
    computed = ask(client, question, NO_STORE)
    first = ask(client, question)
    cached = ask(client, question)
    anew = ask(client, question, {"Cache-Control": "no-cache"})
    again = ask(client, question)
    found = [response.headers["x-cache"].partition(";")[0] for response in (computed, first, cached, anew, again)]
    assert found[0] == found[3] == "bypass"
    assert found[1] in ("miss", "partial")  # an operation on another's cached answer is a hit in part
    assert found[2] == found[4] == "hit"
    for other in (first, cached, anew, again):
        assert other.content == computed.content
        assert other.headers["content-type"] == computed.headers["content-type"]
        length = "inference-header-content-length"
        assert other.headers.get(length) == computed.headers.get(length)


@pytest.mark.parametrize("model", [VAE, GAN])
def test_a_cached_sample_has_the_bytes_of_one_computed_beside_others(client: httpx.Client, model: str) -> None:
    number = seed()
    few, many = (generation(seed=number, count=count, model=model, format="array") for count in (3, 8))
    ask(client, few)
    mixed = ask(client, many)
    assert mixed.headers["x-cache"] == "partial; hits=3/8"
    assert mixed.content == ask(client, many, NO_STORE).content


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


def test_a_parameter_that_only_reads_the_answer_computes_nothing_and_is_heeded(client: httpx.Client) -> None:
    images = unseen(8)
    scored = ask(client, native("/score", rows)(images)).json()["scores"]
    for alpha in (0.01, 0.5, 0.99):
        again = ask(client, native("/score", rows, alpha=alpha)(images))
        assert again.headers["x-cache"] == "hit; hits=8/8"
        assert again.json()["alpha"] == alpha
        for one, other in zip(scored, again.json()["scores"], strict=True):
            assert other["p_value"] == one["p_value"]
            assert other["anomalous"] == (one["p_value"] <= alpha)
    for top_k in (1, 10):
        answer = ask(client, native("/classify", rows, top_k=top_k)(images))
        assert [len(prediction["top"]) for prediction in answer.json()["predictions"]] == [top_k] * 8
    assert answer.headers["x-cache"] == "hit; hits=8/8"


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


def test_latents_are_what_is_looked_up_however_they_came(client: httpx.Client) -> None:
    number = seed()
    assert status(client, generation(seed=number, count=2, model=VAE)) == MISS
    metadata = client.get(f"/v2/models/{VAE}").json()
    [size] = [tensor["shape"][1] for tensor in metadata["inputs"] if tensor["name"] == "latents"]
    noise = latents(number, range(2), size)
    tensor = {"name": "latents", "datatype": "FP32", "shape": list(noise.shape), "data": noise.ravel().tolist()}
    assert status(client, (f"/v2/models/{VAE}/infer", {"json": {"inputs": [tensor]}})) == HIT


def test_fresh_seeds_are_not_kept(client: httpx.Client) -> None:
    for _ in range(2):
        assert status(client, generation(count=2)) == "bypass"


def test_an_age_stands_on_hits_alone(client: httpx.Client) -> None:
    images, make = unseen(3), native("/classify", rows)
    assert "age" not in ask(client, make(images[:2]), NO_STORE).headers
    assert "age" not in ask(client, make(images[:2])).headers
    assert "age" not in ask(client, make(images[:2]), {"Cache-Control": "no-cache"}).headers
    for known in (images[:2], images):
        hit = ask(client, make(known))
        assert 0 <= int(hit.headers["age"]) < 600
    assert "age" not in client.get("/v2").headers


WISHES: dict[str, list[tuple[str, str]]] = {
    "no-store": [("Cache-Control", "no-store")],
    "no-cache": [("Cache-Control", "no-cache")],
    "both": [("Cache-Control", "No-Cache, No-Store")],
    "no-store in the first of two lines": [("Cache-Control", "no-store"), ("Cache-Control", "max-age=0")],
    "no-store in the second of two lines": [("Cache-Control", "max-age=0"), ("cache-control", "no-store")],
    "no-cache in the first of two lines": [("Cache-Control", "no-cache"), ("Cache-Control", "private")],
    "one in each line": [("Cache-Control", "no-store"), ("Cache-Control", "no-cache")],
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("protocol", ["native", "V2"])
def test_what_the_caller_wishes_of_the_cache_is_heeded(client: httpx.Client, wish: str, protocol: str) -> None:
    make = {
        "native": native("/classify", rows),
        "V2": v2(CNN, "UINT8", lambda images: images.ravel().tolist()),
    }[protocol]
    known, new = unseen(), unseen()
    kept = "no-store" not in " ".join(itertools.chain(*WISHES[wish])).lower()
    assert status(client, make(known)) == MISS
    for images in (known, new):
        assert ask(client, make(images), WISHES[wish]).headers["x-cache"] == "bypass"
    assert status(client, make(known)) == HIT, "what was there stays"
    assert status(client, make(new)) == (HIT if kept else MISS)


@pytest.mark.parametrize("model", [CNN, SCORER, VAE, GAN])
def test_a_model_shows_what_decides_about_its_cache(client: httpx.Client, model: str) -> None:
    cache = client.get(f"/v2/models/{model}").json()["parameters"]["cache"]
    operations = {CNN: {"classify"}, SCORER: {"score", "score_map"}, VAE: {"decode", "encode"}, GAN: {"decode"}}
    assert operations[model] <= cache.keys()
    for about in cache.values():
        assert about["item_seconds"] > 0
        # This server has no Redis.
        assert about["admission"] == "never"
        assert about["redis_round_trip_seconds"] is None
        assert about["redis_from_items"] is None
        assert about["computed_once_in_all"] is False


def test_a_server_with_redis_shows_its_two_numbers_and_keeps_what_is_worth_it(serve: Any, redis_server: Any) -> None:
    settings = {"REDIS_URL": redis_server.url, "REDIS_ADMISSION": "always", "REDIS_TIMEOUT_MS": "10000"}
    settings = {f"DUET_{name}": value for name, value in settings.items()}
    with (
        serve("anomaly", **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        cache = client.get(f"/v2/models/{SCORER}").json()["parameters"]["cache"]
        assert cache.keys() == {"score", "score_map"}
        for about in cache.values():
            assert (about["admission"], about["redis_from_items"]) == ("always", 1)
            assert 0 < about["redis_round_trip_seconds"] < 1
        images = unseen()
        first = ask(client, native("/score", rows)(images))
    with (
        serve("anomaly", **settings) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        again = ask(client, v2(SCORER, "FP32", lambda images: exact(images).tobytes())(images))
        assert again.headers["x-cache"] == HIT, "another process found it"
        assert ask(client, native("/score", rows)(images)).content == first.content
