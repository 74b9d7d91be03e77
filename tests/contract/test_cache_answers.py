"""Answers from the cache, over HTTP: the same bytes as computed ones, and read as each request wishes."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.contract.questions import (
    CNN,
    GAN,
    NO_STORE,
    SCORER,
    VAE,
    Request,
    ask,
    exact,
    generation,
    native,
    prefixed,
    rows,
    seed,
    text,
    unseen,
    upload,
    v2,
    v2_generation,
)

pytestmark = [pytest.mark.server, pytest.mark.slow]

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
