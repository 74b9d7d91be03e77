"""A request in a frame that is known is read as the general parser reads it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import DuetError
from services.protocol.v2.frames import TEXT_BYTES, split
from services.protocol.v2.inference import InferRequest, Output, parse
from services.protocol.v2.plans import Plan, Plans
from services.protocol.v2.tensors import TEXT_SLICE, plain_list

SPEC = {"name": "images", "datatype": "UINT8", "shape": [2, 1, 2, 2], "data": list(range(8))}
OUTPUTS = [Output("y", False)]


def read(text: bytes) -> InferRequest:
    request = parse(text, len(text))
    request.read()
    return request


def known(plans: Plans, text: bytes) -> InferRequest | None:
    """The request as the plans tell it, if they know its frame."""
    frame, listed = split(text, len(text))
    plan = plans.find(frame, len(text) if listed is None else None)
    request = plan.request(text, listed) if plan is not None else None
    if request is not None:
        request.read()
    return request


def learn(plans: Plans, text: bytes) -> Plan | None:
    frame, listed = split(text, len(text))
    return plans.make(frame, read(text), OUTPUTS, framed=listed is not None)


def same(one: InferRequest, other: InferRequest) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    for name, array in one.inputs.items():
        np.testing.assert_array_equal(array, other.inputs[name])
        assert (array.dtype, array.shape) == (other.inputs[name].dtype, other.inputs[name].shape)
    about = [(r.outputs, r.parameters, r.id, r.binary_output, r.size, r.rows) for r in (one, other)]
    assert about[0] == about[1]


def refusal(text: bytes) -> tuple[object, ...] | None:
    """Why a request is refused; None if it is not."""
    try:
        read(text)
    except DuetError as error:
        return type(error), str(error), error.field
    return None


def refusal_if_known(plans: Plans, text: bytes) -> tuple[object, ...] | None:
    """The same, where the plans know the frame; None: they leave the text to the parser."""
    try:
        found = known(plans, text)
    except DuetError as error:
        return type(error), str(error), error.field
    assert found is None, "it is not refused"
    return None


def alike(plans: Plans, text: bytes) -> None:
    """A text that the plans know is read as the parser reads it; what it refuses they refuse, or leave to it."""
    wanted = refusal(text)
    if wanted is not None:
        assert refusal_if_known(plans, text) in (None, wanted)
    elif (found := known(plans, text)) is not None:
        same(found, read(text))


def with_data(data: Any, **document: Any) -> bytes:
    return json.dumps({"inputs": [SPEC | {"data": data}]} | document).encode()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"parameters": {"alpha": 0.1, "data": [1, 2]}},
        {"parameters": {"x": '"data": [1]'}},
        {"outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        {"inputs": [SPEC, {"name": "labels", "datatype": "INT64", "shape": [1], "data": [3]}]},
        {"inputs": [{"name": "noise", "datatype": "FP32", "shape": [2], "data": [1.5, -2]}]},
        {"inputs": [{"name": "names", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]},
    ],
)
def test_a_known_frame_with_other_data(document: dict[str, Any]) -> None:
    plans, whole = Plans(), {"inputs": [SPEC]} | document
    assert learn(plans, json.dumps(whole).encode()) is not None
    first = whole["inputs"][0]
    other = json.dumps(whole | {"inputs": [first | {"data": first["data"][::-1]}, *whole["inputs"][1:]]}).encode()
    found = known(plans, other)
    assert found is not None
    same(found, read(other))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"id": "7", "inputs": [SPEC]}),  # a frame that does not come again
        json.dumps({"inputs": [SPEC | {"data": [[0, 1, 2, 3], [4, 5, 6, 7]]}]}),
        json.dumps({"parameters": {"data": [1, 2]}, "inputs": [SPEC]}),
        json.dumps({"parameters": {"name": "data"}, "inputs": [SPEC]}),
        json.dumps({"more": [{"data": [1]}], "inputs": [SPEC]}),
        json.dumps({"inputs": [SPEC], "parameters": {"long": "x" * TEXT_BYTES}}),
        '{"inputs": [{"data": [1], "name": "images", "datatype": "UINT8", "shape": [1], "data": [2]}]}',
    ],
)
def test_other_lists_make_no_plan(text: str) -> None:
    plans = Plans()
    learn(plans, text.encode())
    assert known(plans, text.encode()) is None


@pytest.mark.parametrize(
    "data",
    ["[0,1,2,3,4,5,6]", "[0,1,2,3,4,5,6,256]", "[0,1,2,3,4,5,6,-1]", "[0,1,2,3,4,5,6,true]", "[0,1,2,3,4,5,6,7.5]",
     "[0,1,2,3,4,5,6,null]", '[0,1,2,3,4,5,6,"7"]', "[0,1,2,3,4,5,6,]", "[,0,1,2,3,4,5,6,7]", "[0,1,2,3,4,5,6,07]",
     "[0,1,2,3,4,5,6,NaN]", "[0,1,2,3,4,5,6,7", "[[0,1,2,3,4,5,6,7]", "[0,1,2,3,4,5,6,{}]", "[]", "[0 1]", "[1e1]",
     '[0,1,2,3,4,5,6,"]"]', "[0,1,2,3,4,5,6,7]]", "[0,1,2,3,4,5,6,123456789012345678901234567890]", "{}", "7"],
)  # fmt: skip
def test_wrong_data_in_a_known_frame_are_refused_as_they_are_without_it(data: str) -> None:
    plans = Plans()
    learn(plans, with_data(SPEC["data"]))
    text = with_data([]).replace(b"[]", data.encode())
    wanted = refusal(text)
    assert wanted is not None
    assert refusal_if_known(plans, text) in (None, wanted)


numbers = st.one_of(st.integers(-2, 300), st.booleans(), st.floats(allow_nan=False), st.none(), st.text('],["e1'))


lists = st.lists(st.integers(0, 255), min_size=8, max_size=8) | st.lists(numbers, max_size=9)


@given(lists, st.sampled_from(["", " "]))
def test_a_known_frame_tells_what_the_parser_tells(data: list[Any], space: str) -> None:
    plans = Plans()
    text, bare = (
        json.dumps({"inputs": [SPEC | {"data": some}]}, separators=("," + space, ":" + space)).encode()
        for some in (data, SPEC["data"])
    )
    assert learn(plans, bare) is not None
    alike(plans, text)


@given(st.text('[]{}",:0123456789 \\dat', max_size=60), st.integers(0, 200))
def test_whatever_stands_in_a_frame_is_read_alike(noise: str, at: int) -> None:
    """Texts that are cut into at any place, so that brackets and quotes stand where they do not belong."""
    plans, bare = Plans(), with_data(SPEC["data"])
    learn(plans, bare)
    text = bare[:at] + noise.encode() + bare[at:]
    if refusal(text) is None:
        learn(plans, text)
    alike(plans, text)


def test_plain_lists_longer_than_a_slice() -> None:
    values = np.random.default_rng(0).integers(0, 256, 3 * TEXT_SLICE).astype(np.uint8)
    text = json.dumps(values.tolist()).encode()
    assert plain_list(text) == values.tobytes()
    assert plain_list(text.replace(b" ", b"")) == values.tobytes()
    for wrong in (b",,", b", true,", b", 256,", b", [1],", b" ", b',"1",'):
        for at in (100, len(text) // 2, len(text) - 100):
            comma = text.index(b",", at)
            damaged = text[:comma] + wrong + text[comma + 1 :]
            assert plain_list(damaged) is None or json.loads(damaged) == list(plain_list(damaged) or ())
    assert plain_list(text[:-1] + b",]") is None
    assert plain_list(b"[" + b" " * 2 * TEXT_SLICE + b"1]") is None


def test_a_split_gives_the_frame_and_the_list() -> None:
    text = with_data([1, 2])
    frame, listed = split(bytearray(text), len(text))
    assert (json.loads(frame), listed) == ({"inputs": [SPEC | {"data": []}]}, b"[1, 2]")
    assert split(text + b"tail", len(text)) == (text, None), "binary tensors follow"
    assert split(b'{"inputs": []}', 14) == (b'{"inputs": []}', None)
    assert split(b" " * (TEXT_BYTES + 1), TEXT_BYTES + 1) == (b"", None)
