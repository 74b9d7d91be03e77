"""What each kind of model takes and gives in V2, on the trained models."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from services.dataplane import DataPlane
from services.errors import DuetError, InvalidInput, TooLarge
from services.inference.generator import Generator
from services.inference.noise import latents
from services.protocol.services import PROTOCOLS

pytestmark = pytest.mark.asyncio(loop_scope="session")

Ask = Callable[..., Awaitable[Any]]
CNN, VAE, GAN, SCORER = "digits-cnn", "digits-vae", "digits-gan", "digits-scorer"
EXPLANATIONS = ["class_activation", "occlusion", "rise"]
ALL = {
    CNN: ["probabilities", "label", "logits", "prediction_set", *EXPLANATIONS],
    SCORER: ["p_value", "anomalous", "score", "residual", "label", "class_p_value", "statistics", "look_alike"],
    VAE: ["images", "latents"],
}


def named(*names: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": {"binary_data": True} | parameters} for name in names]


@pytest.fixture
def latent_size(plane: DataPlane) -> int:
    return plane.select(Generator, "decode", VAE).model.latent_size


def computed(operation: str) -> float:
    """Items that this operation has computed, of any model."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "duet_batch_items_sum" and sample.labels["operation"] == operation
    )


async def refused(asking: Awaitable[Any], kind: type[DuetError], field: str, message: str | None = None) -> None:
    with pytest.raises(kind, match=message) as refusal:
        await asking
    assert refusal.value.field == field
    assert len(refusal.value.detail) < 200


@pytest.mark.parametrize("model", sorted(ALL))
@pytest.mark.parametrize("binary", [True, False])
async def test_metadata_tells_what_comes(
    ask: Ask, plane: DataPlane, digits: np.ndarray, model: str, binary: bool
) -> None:
    reply = await ask(model, {"images": digits}, outputs=named(*ALL[model], binary_data=binary))
    [face] = [
        PROTOCOLS[served.entry.task].signature(served.model) for served in plane.served if served.entry.name == model
    ]
    told = {tensor.name: (tensor.datatype, tensor.shape) for tensor in face.outputs}
    came = {spec["name"]: (spec["datatype"], tuple(spec["shape"])) for spec in reply.about["outputs"]}
    assert list(came) == ALL[model]
    assert came == {name: (kind, (len(digits), *shape[1:])) for name, (kind, shape) in told.items()}


@pytest.mark.parametrize("model", sorted(ALL))
async def test_what_is_not_asked_for_is_the_default_outputs(ask: Ask, digits: np.ndarray, model: str) -> None:
    asked = {"logits", "prediction_set", "residual", "latents", *EXPLANATIONS}
    asked |= {"class_p_value", "statistics", "look_alike", *(("label",) if model == SCORER else ())}
    assert [*(await ask(model, {"images": digits})).outputs] == [name for name in ALL[model] if name not in asked]


@pytest.mark.parametrize("model", sorted(ALL))
async def test_every_form_of_an_image_gives_the_same_answer(
    ask: Ask, digits: np.ndarray, files: list[bytes], model: str
) -> None:
    text = [base64.b64encode(file) for file in files]
    forms = [digits, (digits / np.float32(255)).astype(np.float32), files, text]
    replies = [await ask(model, {"images": form}, outputs=named(*ALL[model])) for form in forms]
    replies += [
        await ask(model, {"images": form}, binary=False, outputs=named(*ALL[model])) for form in (*forms[:2], text)
    ]
    for name in ALL[model]:
        assert len({reply.outputs[name].tobytes() for reply in replies if name != "label"}) <= 1
    assert len({str(reply.outputs.get("label")) for reply in replies}) == 1


async def test_a_pixel_as_k_of_255_is_the_pixel_k_for_every_k(ask: Ask) -> None:
    pixels = np.resize(np.arange(256, dtype=np.uint8), (1, 1, 28, 28))
    fractions = [pixels / np.float32(255), (pixels / 255).astype(np.float32), pixels * np.float32(1 / 255)]
    expected = (await ask(SCORER, {"images": pixels}, outputs=named("residual"))).outputs["residual"]
    for fraction in fractions:
        reply = await ask(SCORER, {"images": fraction}, outputs=named("residual"))
        assert np.array_equal(reply.outputs["residual"], expected)


async def test_a_fraction_between_two_pixels_is_the_nearer_one(ask: Ask) -> None:
    pixels = np.resize(np.arange(1, 255, dtype=np.uint8), (1, 1, 28, 28))
    expected = (await ask(SCORER, {"images": pixels}, outputs=named("residual"))).outputs["residual"]
    for off in (-0.4, 0.4):
        fraction = ((pixels + off) / 255).astype(np.float32)
        reply = await ask(SCORER, {"images": fraction}, outputs=named("residual"))
        assert np.array_equal(reply.outputs["residual"], expected)


async def test_a_jpeg_is_decoded_and_resized(ask: Ask, digits: np.ndarray) -> None:
    large = io.BytesIO()
    Image.fromarray(digits[0, 0]).resize((140, 140)).save(large, "JPEG", quality=95)
    label = [(await ask(CNN, {"images": images})).outputs["label"][0] for images in (digits[:1], [large.getvalue()])]
    assert label[0] == label[1]


async def test_a_label_is_the_class_of_the_largest_probability(ask: Ask, digits: np.ndarray) -> None:
    outputs = (await ask(CNN, {"images": digits})).outputs
    assert outputs["label"].tolist() == [str(k) for k in outputs["probabilities"].argmax(axis=1)]


async def test_classification_ranks_the_classes(ask: Ask, digits: np.ndarray) -> None:
    plain = (await ask(CNN, {"images": digits}, outputs=named("probabilities"))).outputs["probabilities"]
    ranked = (await ask(CNN, {"images": digits}, outputs=named("probabilities", classification=3))).outputs
    assert ranked["probabilities"].shape == (len(digits), 3)
    for row, probabilities in zip(ranked["probabilities"], plain, strict=True):
        values, indices, labels = zip(*(element.split(":") for element in row), strict=True)
        assert [int(index) for index in indices] == np.argsort(-probabilities, kind="stable")[:3].tolist()
        assert labels == indices  # the classes of the digits are named by their numbers
        assert np.allclose([float(value) for value in values], np.sort(probabilities)[::-1][:3], atol=1e-6)


async def test_more_ranks_than_classes_are_all_classes(ask: Ask, digits: np.ndarray) -> None:
    reply = await ask(CNN, {"images": digits}, outputs=named("logits", classification=99))
    assert reply.outputs["logits"].shape == (len(digits), 10)


async def test_the_residual_is_computed_only_when_it_is_asked_for(ask: Ask, digits: np.ndarray) -> None:
    before = computed("score"), computed("score_map")
    await ask(SCORER, {"images": digits}, outputs=named("p_value"))
    assert (computed("score"), computed("score_map")) == (before[0] + len(digits), before[1])
    await ask(SCORER, {"images": digits}, outputs=named("p_value", "residual"))
    assert (computed("score"), computed("score_map")) == (before[0] + len(digits), before[1] + len(digits))


async def test_alpha_decides_what_is_anomalous(ask: Ask, digits: np.ndarray) -> None:
    for alpha in (0.001, 0.3, 0.999):
        outputs = (await ask(SCORER, {"images": digits}, parameters={"alpha": alpha})).outputs
        assert np.array_equal(outputs["anomalous"], outputs["p_value"] <= np.float32(alpha))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2, "0.1", None, True, [0.1], 2**64])
async def test_alpha_is_a_number_between_0_and_1(ask: Ask, digits: np.ndarray, alpha: object) -> None:
    await refused(ask(SCORER, {"images": digits}, parameters={"alpha": alpha}), InvalidInput, "parameters.alpha")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 28, 27), np.uint8), r"shape \[2, 1, 28, 27\]; this model takes \[n,1,28,28\]"),
        (np.zeros((28, 28), np.uint8), r"takes \[n,1,28,28\]"),
        (np.zeros((), np.uint8), r"takes \[n,1,28,28\]"),
        (np.zeros((1, 1, 28, 28), np.int64), "is INT64; send UINT8, FP32"),
        (np.zeros((1, 1, 28, 28), bool), "is BOOL; send UINT8, FP32"),
        (np.full((1, 1, 28, 28), 1.01, np.float32), "has values 1.01 to 1.01; send FP32 pixels in 0..1"),
        (np.full((1, 1, 28, 28), -0.01, np.float32), "has values -0.01 to -0.01; send FP32 pixels in 0..1"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), "has values nan to nan; send FP32 pixels in 0..1"),
        (np.full((1, 1, 28, 28), np.inf, np.float32), "has values inf to inf; send FP32 pixels in 0..1"),
    ],
)
@pytest.mark.parametrize("model", [CNN, SCORER, VAE])
async def test_images_that_do_not_fit_are_refused(ask: Ask, model: str, images: Any, message: str) -> None:
    await refused(ask(model, {"images": images}), InvalidInput, "inputs.images", message)


async def test_one_pixel_that_is_no_number_is_found(ask: Ask, digits: np.ndarray) -> None:
    images = (digits / 255).astype(np.float32)
    images[5, 0, 13, 13] = np.nan
    await refused(ask(CNN, {"images": images}), InvalidInput, "inputs.images", "send FP32 pixels in 0..1")


@pytest.mark.parametrize("file", [b"", b"GIF89a", b"\x89PNG damaged", b"\xff\xd8", b"/w==", "ä".encode()])
async def test_a_file_that_is_no_image_is_named(ask: Ask, files: list[bytes], file: bytes) -> None:
    await refused(ask(CNN, {"images": [files[0], file]}), InvalidInput, "inputs.images[1]")


@pytest.mark.parametrize("images", [np.zeros((257, 1, 28, 28), np.uint8), [b"x"] * 257])
async def test_too_many_images_are_refused_unread(ask: Ask, images: Any) -> None:
    await refused(ask(CNN, {"images": images}), TooLarge, "inputs.images", "257 items; at most 256")


@pytest.mark.parametrize("model", [CNN, SCORER])
async def test_images_are_needed(ask: Ask, model: str) -> None:
    await refused(ask(model, {}), InvalidInput, "inputs.images", "inputs.images is missing; the inputs sent are none")


@pytest.mark.parametrize("model", [VAE, GAN])
async def test_a_seed_as_tensor_and_as_parameter_is_the_same(ask: Ask, model: str) -> None:
    tensors = {"seed": np.array([7]), "count": np.array([3])}
    first = (await ask(model, tensors)).outputs["images"]
    second = (await ask(model, {}, parameters={"seed": 7, "count": 3})).outputs["images"]
    other = (await ask(model, {}, parameters={"seed": 8, "count": 3})).outputs["images"]
    assert first.shape == (3, 1, 28, 28)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


async def test_a_seed_may_be_text_and_a_count_may_not(ask: Ask) -> None:
    text = await ask(VAE, {}, parameters={"seed": "7"})
    number = await ask(VAE, {}, parameters={"seed": 7})
    assert np.array_equal(text.outputs["images"], number.outputs["images"])
    refusal = 'parameters.count is "2"; send an integer'
    await refused(ask(VAE, {}, parameters={"seed": 7, "count": "2"}), InvalidInput, "parameters.count", refusal)


@pytest.mark.parametrize("model", [VAE, GAN])
async def test_latents_are_what_the_seed_draws_and_draw_the_same_images(ask: Ask, model: str) -> None:
    drawn = (await ask(model, {}, parameters={"seed": 7, "count": 3}, outputs=named("images", "latents"))).outputs
    assert np.array_equal(drawn["latents"], latents(7, range(3), drawn["latents"].shape[1]))
    again = (await ask(model, {"latents": drawn["latents"]})).outputs
    assert np.array_equal(again["images"], drawn["images"])


@pytest.mark.parametrize("pad", range(4))
async def test_latents_may_begin_anywhere_in_the_body(ask: Ask, latent_size: int, pad: int) -> None:
    noise = latents(7, [0], latent_size)
    replies = [await ask(VAE, {"latents": noise}, id="x" * n, cached=False) for n in (0, pad)]
    assert np.array_equal(replies[0].outputs["images"], replies[1].outputs["images"])


async def test_latents_alone_are_not_decoded(ask: Ask, digits: np.ndarray) -> None:
    before = computed("decode")
    reply = await ask(VAE, {"images": digits}, outputs=named("latents"))
    assert [*reply.outputs] == ["latents"]
    assert computed("decode") == before


async def test_truncation_scales_the_latents(ask: Ask) -> None:
    full, half = [
        (await ask(VAE, {}, parameters={"seed": 7, "truncation": t}, outputs=named("latents"))).outputs["latents"]
        for t in (1, 0.5)
    ]
    assert np.allclose(half, full / 2)


async def test_without_a_seed_every_draw_is_new_and_never_cached(ask: Ask) -> None:
    replies = [await ask(VAE, {}, cached=True) for _ in range(2)]
    assert not np.array_equal(replies[0].outputs["images"], replies[1].outputs["images"])
    assert [reply.call.cache_status for reply in replies] == ["bypass", "bypass"]


async def test_labels_choose_the_classes_and_tell_how_many(ask: Ask) -> None:
    seed = {"seed": np.array([7])}
    numbers = (await ask(GAN, seed | {"labels": np.array([3, 1, 4])})).outputs["images"]
    names = (await ask(GAN, seed | {"labels": [b"3", b"1", b"4"]})).outputs["images"]
    text = (await ask(GAN, seed | {"labels": [b"3", b"1", b"4"]}, binary=False)).outputs["images"]
    assert numbers.shape == (3, 1, 28, 28)
    assert np.array_equal(numbers, names)
    assert np.array_equal(numbers, text)
    in_turn = (await ask(GAN, seed | {"count": np.array([5])})).outputs["images"]
    assert np.array_equal(in_turn, (await ask(GAN, seed | {"labels": np.arange(5)})).outputs["images"])


async def test_one_label_is_for_all(ask: Ask) -> None:
    inputs = {"seed": np.array([7]), "count": np.array([3])}
    one = (await ask(GAN, inputs | {"labels": np.array([4])})).outputs["images"]
    assert np.array_equal(one, (await ask(GAN, inputs | {"labels": np.array([4, 4, 4])})).outputs["images"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([10]), "inputs.labels: '10' is not one of 0, 1"),
        (np.array([-1]), "inputs.labels: '-1' is not one of"),
        ([b"seven"], "'seven' is not one of 0, 1"),
        ([b"\xff"], "'\ufffd' is not one of 0, 1"),
        ([b"x" * 999], "'xxx"),
        (np.array([[1]]), r"send INT64 or BYTES \[1\]"),
        (np.array([1.0], np.float32), "send INT64 or BYTES"),
        (np.array([True]), "send INT64 or BYTES"),
    ],
)
async def test_a_label_that_is_no_class_is_refused(ask: Ask, labels: Any, message: str) -> None:
    await refused(ask(GAN, {"labels": labels}), InvalidInput, "inputs.labels", message)


async def test_labels_that_do_not_fit_the_count_are_refused(ask: Ask) -> None:
    wrong = ask(GAN, {"labels": np.array([1, 2]), "count": np.array([3])})
    await refused(wrong, InvalidInput, "inputs.labels", r"shape \[2\]; send INT64 or BYTES \[3\] or \[1\]")


async def test_a_model_takes_only_what_it_has(ask: Ask, digits: np.ndarray) -> None:
    await refused(ask(GAN, {"images": digits}), InvalidInput, "inputs", "'images' is not one of count, labels, latents")
    await refused(ask(VAE, {"labels": np.array([1])}), InvalidInput, "inputs", "'labels' is not one of")


@pytest.mark.parametrize(
    ("tensors", "parameters", "field"),
    [
        ({"seed": np.array([-1])}, {}, "seed"),
        ({"seed": np.array([1, 2])}, {}, "inputs.seed"),
        ({"seed": np.array([1.0], np.float32)}, {}, "inputs.seed"),
        ({}, {"seed": -1}, "seed"),
        ({}, {"seed": 2**63}, "seed"),
        ({}, {"seed": 2**70}, "parameters.seed"),
        ({}, {"seed": "seven"}, "parameters.seed"),
        ({}, {"seed": True}, "parameters.seed"),
        ({}, {"seed": 7.0}, "parameters.seed"),
        ({}, {"seed": None}, "parameters.seed"),
        ({"count": np.array([0])}, {}, "count"),
        ({}, {"count": -3}, "count"),
        ({}, {"count": []}, "parameters.count"),
        ({}, {"truncation": 0}, "parameters.truncation"),
        ({}, {"truncation": -0.5}, "parameters.truncation"),
        ({}, {"truncation": 2.1}, "parameters.truncation"),
        ({}, {"truncation": {}}, "parameters.truncation"),
    ],
)
async def test_what_cannot_be_drawn_is_refused(ask: Ask, tensors: Any, parameters: Any, field: str) -> None:
    await refused(ask(VAE, tensors, parameters=parameters), InvalidInput, field)


async def test_latents_that_do_not_fit_are_refused(ask: Ask, latent_size: int) -> None:
    good = np.zeros((2, latent_size), np.float32)
    wrong_shape, wrong_type, nan, infinite = good[:, 1:], good.astype(np.int64), good.copy(), good.copy()
    nan[1, 0], infinite[1, 1] = np.nan, -np.inf
    for noise in (wrong_shape, good[0], good[None], wrong_type):
        await refused(ask(VAE, {"latents": noise}), InvalidInput, "inputs.latents", rf"send FP32 \[n,{latent_size}\]")
    for noise in (nan, infinite):
        await refused(ask(VAE, {"latents": noise}), InvalidInput, "inputs.latents", "NaN or infinite values")


async def test_too_many_samples_are_refused(ask: Ask, latent_size: int) -> None:
    await refused(ask(VAE, {"count": np.array([257])}), TooLarge, "count", "257 items; at most 256")
    await refused(ask(VAE, {}, parameters={"count": 10**9}), TooLarge, "count", "1000000000 items; at most 256")
    noise = np.zeros((257, latent_size), np.float32)
    await refused(ask(VAE, {"latents": noise}), TooLarge, "inputs.latents", "257 items; at most 256")
