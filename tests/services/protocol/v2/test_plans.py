"""A request whose JSON came before is answered as it was the first time."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import numpy as np
import pytest

from services.errors import DuetError
from services.protocol.v2.inference import InferRequest, Output, parse
from services.protocol.v2.plans import HEADS, KEPT, Plans
from tests.services.protocol.v2.conftest import Ask

IMAGES = np.arange(2 * 4, dtype=np.uint8).reshape(2, 1, 2, 2)


def text_of(count: int = 2, **document: Any) -> bytes:
    spec = {
        "name": "images",
        "datatype": "UINT8",
        "shape": [count, 1, 2, 2],
        "parameters": {"binary_data_size": count * 4},
    }
    return json.dumps({"inputs": [spec]} | document).encode()


def read(text: bytes, content: bytes) -> InferRequest:
    request = parse(text + content, len(text))
    request.read()
    return request


def test_a_plan_gives_the_tensors_of_another_body() -> None:
    plans, text = Plans(), text_of(parameters={"alpha": 0.1})
    made = plans.make(text, read(text, IMAGES.tobytes()), [Output("y", True)])
    assert made is not None
    other = text + IMAGES[::-1].tobytes()
    plan = plans.find(text, len(other))
    assert plan is made
    request = plan.request(other)
    np.testing.assert_array_equal(request.inputs["images"], IMAGES[::-1])
    assert (request.parameters, request.rows) == ({"alpha": 0.1}, 2)
    assert plans.find(text, len(other) + 1) is None
    assert plans.find(text[:-1], len(other)) is None


@pytest.mark.parametrize("given", [{"data": [1] * 8}, {"datatype": "BYTES", "shape": [2]}, None])
def test_only_binary_tensors_of_fixed_size_have_a_plan(given: dict[str, Any] | None) -> None:
    spec: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 2, 2]}
    raw = b""
    if given is not None and "data" not in given:
        raw = b"\x02\x00\x00\x00ab" * 2
        spec["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [] if given is None else [spec | given]}).encode()
    assert Plans().make(text, read(text, raw), []) is None


def test_the_json_of_an_answer_is_kept_for_its_number_of_rows() -> None:
    plans, text = Plans(), text_of()
    plan = plans.make(text, read(text, IMAGES.tobytes()), [Output("y", True)])
    assert plan is not None
    one, two = {"y": np.ones((1, 3), np.float32)}, {"y": np.full((2, 3), 2, np.float32)}
    assert plan.answer(one) is None
    plan.keep(one, b"one")
    plan.keep(two, b"two")
    assert plan.answer(one) == (b"one" + one["y"].tobytes(), 3)
    assert plan.answer(two) == (b"two" + two["y"].tobytes(), 3)
    for rows in range(3, HEADS + 10):
        plan.keep({"y": np.ones((rows, 3), np.float32)}, b"more")
    assert len(plan._heads) == HEADS


@pytest.mark.parametrize(
    ("outputs", "array", "document"),
    [
        ([Output("y", False)], np.ones((1, 3), np.float32), {}),
        ([Output("y", True, classification=2)], np.ones((1, 3), np.float32), {}),
        ([Output("y", True)], np.array([b"label"], object), {}),
        ([Output("y", True)], np.ones((1, 3), np.float32), {"id": "7"}),
    ],
)
def test_the_json_of_an_answer_that_differs_each_time_is_not_kept(
    outputs: list[Output], array: np.ndarray, document: dict[str, Any]
) -> None:
    plans, text = Plans(), text_of(**document)
    plan = plans.make(text, read(text, IMAGES.tobytes()), outputs)
    assert plan is not None
    plan.keep({"y": array}, b"head")
    assert plan.answer({"y": array}) is None


def test_plans_are_bounded_and_hold_no_body() -> None:
    plans, body = Plans(), bytearray(IMAGES.tobytes())
    for number in range(KEPT + 10):
        text = text_of(parameters={"n": number})
        content = text + bytes(body)
        request = parse(content, len(text))
        request.read()
        plans.make(text, request, [])
    assert len(plans._plans) == KEPT
    del request
    gc.collect()
    assert sys.getrefcount(content) == 2, "a plan holds the last body"


@pytest.mark.asyncio(loop_scope="session")
async def test_a_repeated_request_gets_the_same_answer(ask: Ask, digits: np.ndarray) -> None:
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    first = await ask("digits-cnn", {"images": digits[:2]}, outputs=outputs)
    again = await ask("digits-cnn", {"images": digits[:2]}, outputs=outputs)
    assert (again.body, again.headers.keys()) == (first.body, first.headers.keys())
    other = await ask("digits-cnn", {"images": digits[2:4]}, outputs=outputs)
    alone = await ask("digits-cnn", {"images": digits[2:4]}, outputs=outputs, binary=False)
    np.testing.assert_allclose(other.outputs["probabilities"], alone.outputs["probabilities"], atol=1e-6)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_repeated_request_is_refused_again(ask: Ask, digits: np.ndarray) -> None:
    for _ in range(2):
        with pytest.raises(DuetError, match=r"this model takes \[n,1,28,28\]"):
            await ask("digits-cnn", {"images": digits[:2, :, :14]})
