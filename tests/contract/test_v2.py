"""Triton's own HTTP client, synchronous and asyncio, against the all-in-one and the three services."""

from __future__ import annotations

import asyncio
import gc
import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tritonclient import http
from tritonclient.http import InferInput, InferRequestedOutput, aio
from tritonclient.utils import InferenceServerException

from training.data.digits import load_digits

pytestmark = [pytest.mark.server, pytest.mark.slow]

CNN, SCORER, VAE, GAN = "digits-cnn", "digits-scorer", "digits-vae", "digits-gan"
SERVICES = {CNN: "classification", SCORER: "anomaly", VAE: "generation", GAN: "generation"}
OUTPUTS = {CNN: ["probabilities", "logits", "label"], SCORER: ["score", "residual", "anomalous"], VAE: ["images"]}
DIGITS = load_digits().test.images
NO_CACHE = {"Cache-Control": "no-store"}
TRITON = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64", "object": "BYTES"}


@pytest.fixture(scope="module", params=["all-in-one", "three services"])
def urls(request: pytest.FixtureRequest, allinone_url: str, serve: Any) -> Iterator[dict[str, str]]:
    """The URL of every model's server."""
    if request.param == "all-in-one":
        yield dict.fromkeys(SERVICES, allinone_url)
        return
    with ExitStack() as stack:
        started = {name: stack.enter_context(serve(name)).url for name in sorted(set(SERVICES.values()))}
        yield {model: started[service] for model, service in SERVICES.items()}


@dataclass
class Triton:
    """One of the two clients; `triton(model, method, ...)` calls its method at that model's server."""

    urls: dict[str, str]
    asynchronous: bool

    def __call__(self, model: str, method: str, *args: Any, **kwargs: Any) -> Any:
        address = self.urls[model].removeprefix("http://")
        if self.asynchronous:
            return asyncio.run(self._ask(address, method, *args, **kwargs))
        with closing(http.InferenceServerClient(address)) as client:
            return getattr(client, method)(*args, **kwargs)

    async def _ask(self, address: str, method: str, *args: Any, **kwargs: Any) -> Any:
        async with aio.InferenceServerClient(address) as client:
            answer = await getattr(client, method)(*args, **kwargs)
        if method.startswith("is_"):  # the client leaves these connections to the garbage collector, which warns
            with warnings.catch_warnings(action="ignore", category=ResourceWarning):
                gc.collect()
        return answer

    def infer(self, model: str, *inputs: InferInput, **kwargs: Any) -> Any:
        return self(model, "infer", model, list(inputs), **kwargs)


@pytest.fixture(params=["synchronous", "asyncio"])
def triton(request: pytest.FixtureRequest, urls: dict[str, str]) -> Triton:
    return Triton(urls, request.param == "asyncio")


def tensor(name: str, array: np.ndarray, *, binary: bool = True) -> InferInput:
    given = InferInput(name, array.shape, TRITON[array.dtype.name])
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def files(images: np.ndarray, kind: str = "PNG") -> np.ndarray:
    out = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image[0]).save(stream, kind)
        out.append(stream.getvalue())
    array = np.empty(len(out), object)
    array[:] = out
    return array


def wanted(*names: str, binary: bool = True, class_count: int = 0) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, binary_data=binary, class_count=class_count) for name in names]


def computed(url: str, operation: str) -> float:
    """Items of an operation that a server has computed."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
        for sample in family.samples
        if sample.name == "duet_batch_items_sum" and sample.labels["operation"] == operation
    )


@pytest.mark.parametrize("model", sorted(SERVICES))
def test_the_client_finds_the_server_and_its_models(triton: Triton, model: str) -> None:
    assert triton(model, "is_server_live")
    assert triton(model, "is_server_ready")
    assert triton(model, "get_server_metadata")["name"].startswith("duet-")
    metadata = triton(model, "get_model_metadata", model)
    [version] = metadata["versions"]
    assert triton(model, "is_model_ready", model)
    assert triton(model, "is_model_ready", model, version)
    assert triton(model, "get_model_metadata", model, version) == metadata
    assert (model, version) in {
        (entry["name"], entry["version"]) for entry in triton(model, "get_model_repository_index")
    }
    assert not triton(model, "is_model_ready", "nope")
    assert not triton(model, "is_model_ready", model, "nope")


@pytest.mark.parametrize("model", sorted(OUTPUTS))
def test_every_form_of_an_image_gives_the_same_answer_in_every_form(triton: Triton, model: str) -> None:
    images = DIGITS[:3]
    forms = [images, (images / np.float32(255)).astype(np.float32), files(images)]
    answers = []
    for form in forms:
        for binary_in in (True, False) if form.dtype != object else (True,):
            for binary_out in (True, False):
                outputs = wanted(*OUTPUTS[model], binary=binary_out)
                answers.append(triton.infer(model, tensor("images", form, binary=binary_in), outputs=outputs))
    for name in OUTPUTS[model]:
        first, *rest = [answer.as_numpy(name) for answer in answers]
        assert len(first) == 3
        for other in rest:  # BYTES come as bytes or, in JSON, as text
            assert np.array_equal(first.astype(bytes), other.astype(bytes)), name
            assert first.dtype == other.dtype


def test_a_jpeg_is_an_image_too(triton: Triton) -> None:
    large = np.kron(DIGITS[:4], np.ones((1, 1, 5, 5), np.uint8))
    labels = [
        triton.infer(CNN, tensor("images", form)).as_numpy("label").astype(str).tolist()
        for form in (DIGITS[:4], files(large, "JPEG"))
    ]
    assert labels[0] == labels[1]


def test_inputs_and_outputs_mix_binary_and_json(triton: Triton) -> None:
    seed, count, labels = np.array([7]), np.array([3]), np.array([2, 7, 1])
    outputs = [*wanted("images"), *wanted("latents", binary=False)]
    answers = [
        triton.infer(
            GAN,
            tensor("seed", seed, binary=a),
            tensor("count", count, binary=b),
            tensor("labels", labels, binary=c),
            outputs=outputs,
        )
        for a, b, c in [(True, True, True), (True, False, True), (False, True, False), (False, False, False)]
    ]
    for answer in answers:
        assert np.array_equal(answer.as_numpy("images"), answers[0].as_numpy("images"))
        assert np.array_equal(answer.as_numpy("latents"), answers[0].as_numpy("latents"))
    sizes = {spec["name"]: "parameters" in spec for spec in answers[0].get_response()["outputs"]}
    assert sizes == {"images": True, "latents": False}


def test_labels_are_numbers_or_names(triton: Triton) -> None:
    names = np.array([b"2", b"7", b"1"], object)
    drawn = [
        triton.infer(GAN, tensor("labels", labels, binary=binary), parameters={"seed": 7}).as_numpy("images")
        for labels in (np.array([2, 7, 1]), names)
        for binary in (True, False)
    ]
    assert drawn[0].shape == (3, 1, 28, 28)
    assert all(np.array_equal(drawn[0], other) for other in drawn)


def test_without_outputs_the_default_ones_come(triton: Triton) -> None:
    answer = triton.infer(SCORER, tensor("images", DIGITS[:2]))
    assert [spec["name"] for spec in answer.get_response()["outputs"]] == ["p_value", "anomalous", "score"]
    assert answer.as_numpy("anomalous").dtype == bool


def test_a_residual_is_computed_only_when_it_is_asked_for(triton: Triton) -> None:
    url = triton.urls[SCORER]
    images = np.random.default_rng().integers(0, 256, (5, 1, 28, 28), np.uint8)  # no cache knows them
    before = computed(url, "score_map")
    triton.infer(SCORER, tensor("images", images), outputs=wanted("p_value", "score"))
    assert computed(url, "score_map") == before
    answer = triton.infer(SCORER, tensor("images", images), outputs=wanted("residual"))
    assert computed(url, "score_map") == before + 5
    assert [spec["name"] for spec in answer.get_response()["outputs"]] == ["residual"]


@pytest.mark.parametrize("binary", [True, False])
def test_the_classification_extension(triton: Triton, binary: bool) -> None:
    images = tensor("images", DIGITS[:3])
    plain = triton.infer(CNN, images, outputs=wanted("probabilities")).as_numpy("probabilities")
    ranked = triton.infer(CNN, images, outputs=wanted("probabilities", binary=binary, class_count=2))
    for row, probabilities in zip(ranked.as_numpy("probabilities").astype(str), plain, strict=True):
        assert [int(element.split(":")[1]) for element in row] == np.argsort(-probabilities)[:2].tolist()


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
def test_compression_both_ways(triton: Triton, sent: str | None, back: str | None) -> None:
    images = tensor("images", DIGITS[:9])
    outputs = wanted("residual", "p_value")
    plain = triton.infer(SCORER, images, outputs=outputs)
    packed = triton.infer(
        SCORER, images, outputs=outputs, request_compression_algorithm=sent, response_compression_algorithm=back
    )
    assert np.array_equal(plain.as_numpy("residual"), packed.as_numpy("residual"))
    assert np.array_equal(plain.as_numpy("p_value"), packed.as_numpy("p_value"))


@pytest.mark.parametrize("identity", ["7", "ä ☃ 𝄞"])
def test_the_id_comes_back(triton: Triton, identity: str) -> None:
    answer = triton.infer(CNN, tensor("images", DIGITS[:1]), request_id=identity)
    assert answer.get_response()["id"] == identity


def test_parameters_reach_the_model(triton: Triton) -> None:
    def latents(**parameters: Any) -> np.ndarray:
        answer = triton.infer(VAE, outputs=wanted("latents"), parameters=parameters)
        return np.array(answer.as_numpy("latents"))

    full = latents(seed=7, count=3)
    assert len(full) == 3
    assert np.array_equal(full[:2], latents(seed=7, count=2))
    assert np.allclose(full / 2, latents(seed=7, count=3, truncation=0.5))
    p_value = triton.infer(SCORER, tensor("images", DIGITS[:9]))
    for alpha in (0.02, 0.9):
        verdict = triton.infer(SCORER, tensor("images", DIGITS[:9]), parameters={"alpha": alpha})
        assert np.array_equal(verdict.as_numpy("anomalous"), p_value.as_numpy("p_value") <= np.float32(alpha))


@pytest.mark.parametrize("model", [VAE, GAN])
def test_generation_is_the_native_generation(triton: Triton, model: str) -> None:
    native = httpx.post(
        f"{triton.urls[model]}/generate", json={"model": model, "seed": 11, "count": 4, "format": "array"}
    )
    drawn = triton.infer(model, tensor("seed", np.array([11])), tensor("count", np.array([4]))).as_numpy("images")
    assert np.array_equal(drawn[:, 0], np.array(native.json()["images"], np.uint8))


def test_a_version_can_be_named(triton: Triton) -> None:
    [version] = triton(CNN, "get_model_metadata", CNN)["versions"]
    answer = triton.infer(CNN, tensor("images", DIGITS[:1]), model_version=version)
    assert answer.get_response()["model_version"] == version


@pytest.mark.parametrize(
    ("model", "name", "array", "outputs", "detail"),
    [
        (CNN, "images", np.zeros((1, 1, 9, 9), np.uint8), None, r"shape \[1, 1, 9, 9\]; this model takes"),
        (CNN, "images", np.full((1, 1, 28, 28), np.nan, np.float32), None, "send FP32 pixels in 0..1"),
        (CNN, "pictures", DIGITS[:1], None, "'pictures' is not one of images"),
        (SCORER, "images", DIGITS[:1], ["nope"], r"outputs\[0\] is 'nope'; this model has p_value"),
        (VAE, "seed", np.array([-1]), None, "seed is -1; send 0 to"),
        (GAN, "labels", np.array([10]), None, "inputs.labels: '10' is not one of 0, 1"),
    ],
)
def test_an_error_carries_our_words(
    triton: Triton, model: str, name: str, array: np.ndarray, outputs: list[str] | None, detail: str
) -> None:
    with pytest.raises(InferenceServerException, match=detail) as refusal:
        triton.infer(model, tensor(name, array), outputs=outputs and wanted(*outputs))
    assert refusal.value.status() == "422"
    assert "exception occurred in the client" not in refusal.value.message()  # it has understood the body


def test_an_unknown_model_or_version_is_an_error_with_those_there_are(triton: Triton) -> None:
    for call in (("infer", "nope", []), ("infer", CNN, [], "nope"), ("get_model_metadata", "nope")):
        with pytest.raises(InferenceServerException, match=f"is not served here; served are {CNN}:") as refusal:
            triton(CNN, *call)
        assert refusal.value.status() == "404"


@pytest.mark.parametrize(
    "call", [("load_model", CNN), ("unload_model", CNN), ("get_inference_statistics",), ("get_trace_settings",)]
)
def test_what_is_not_offered_is_an_error_that_the_client_understands(triton: Triton, call: tuple[str, ...]) -> None:
    with pytest.raises(
        InferenceServerException, match=r"no such route; below /v2 there are|is not served here; served are digits-cnn:"
    ) as refusal:
        triton(CNN, *call)
    assert refusal.value.status() == "404"


async def test_many_callers_at_once_each_get_their_own_answer(allinone_url: str) -> None:
    images = [tensor("images", image[None]) for image in DIGITS[:128]]
    async with aio.InferenceServerClient(allinone_url.removeprefix("http://"), conn_limit=32) as client:
        alone = [await client.infer(CNN, [image], headers=NO_CACHE) for image in images]
        asked = [client.infer(CNN, [image], request_id=str(i), headers=NO_CACHE) for i, image in enumerate(images)]
        together = await asyncio.gather(*asked)
    for i, (expected, answer) in enumerate(zip(alone, together, strict=True)):
        assert answer.get_response()["id"] == str(i)
        assert np.allclose(answer.as_numpy("probabilities"), expected.as_numpy("probabilities"), atol=1e-5)
