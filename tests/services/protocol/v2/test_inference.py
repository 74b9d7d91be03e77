"""Inference requests and answers on the wire."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import DuetError, InvalidInput, MalformedRequest, TooLarge, UnsupportedMedia
from services.protocol.compression import compress, decompress
from services.protocol.v2 import inference
from services.protocol.v2.inference import InferRequest, render
from services.protocol.v2.tensors import strings

LIMIT = 1000


def parse(body: bytes, header_length: str | None) -> InferRequest:
    request = inference.parse(body, inference.json_size(body, header_length))
    request.read()
    return request


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "UINT8", "shape": [2], "data": [1, 2]} | fields


def body(**fields: Any) -> bytes:
    return json.dumps({"inputs": [tensor()]} | fields).encode()


def binary(*sizes: Any, tail: bytes) -> tuple[bytes, str]:
    """A body of UINT8 tensors `x0`, `x1`... of these sizes, and the length of its header."""
    specs = [
        {"name": f"x{i}", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": size}}
        for i, size in enumerate(sizes)
    ]
    head = json.dumps({"inputs": specs}).encode()
    return head + tail, str(len(head))


def test_json_alone_needs_no_header() -> None:
    request = parse(body(id="ä", parameters={"seed": 7}), None)
    assert request.inputs["x"].tolist() == [1, 2]
    assert (request.id, request.parameters, request.outputs, request.binary_output) == ("ä", {"seed": 7}, [], False)


def test_json_alone_may_also_say_its_length() -> None:
    assert parse(body(), str(len(body()))).inputs["x"].tolist() == [1, 2]


def test_binary_tensors_follow_the_json_in_the_order_of_inputs() -> None:
    raw, length = binary(2, 2, tail=b"\x01\x02\x03\x04")
    assert {name: x.tolist() for name, x in parse(raw, length).inputs.items()} == {"x0": [1, 2], "x1": [3, 4]}


def test_binary_and_json_inputs_mix() -> None:
    specs = [tensor(name="a"), tensor(name="b", parameters={"binary_data_size": 2}), tensor(name="c", data=[5, 6])]
    del specs[1]["data"]
    head = json.dumps({"inputs": specs}).encode()
    inputs = parse(head + b"\x03\x04", str(len(head))).inputs
    assert [x.tolist() for x in inputs.values()] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("parameters", "wish", "is_binary"),
    [
        ({}, {}, False),
        ({"binary_data_output": True}, {}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
        ({}, {"binary_data": True}, True),
    ],
)
def test_an_output_is_binary_as_asked(parameters: Any, wish: Any, is_binary: bool) -> None:
    request = parse(body(parameters=parameters, outputs=[{"name": "y", "parameters": wish}]), None)
    assert request.outputs[0].binary is is_binary
    assert request.parameters == {}


@pytest.mark.parametrize(
    "length", ["-1", "+1", "1.0", "1e3", " 1", "", "ten", "²", "9" * 11, "9" * 5000, "0x10", "1_0", "500"]
)
def test_a_wrong_header_length_is_refused_and_named(length: str) -> None:
    with pytest.raises(MalformedRequest) as refusal:
        parse(body(), length)
    assert refusal.value.field == "Inference-Header-Content-Length"
    assert len(refusal.value.detail) < 150


@pytest.mark.parametrize("length", ["0", "1", "10"])
def test_a_header_length_that_cuts_the_json_is_refused(length: str) -> None:
    with pytest.raises(MalformedRequest, match="not JSON"):
        parse(body(), length)


@pytest.mark.parametrize(
    ("sizes", "tail", "message"),
    [
        ((2, 2), b"\x01\x02\x03", "x1: binary_data_size is 2, but only 1 bytes of the body are left"),
        ((2, 2), b"\x01\x02\x03\x04\x05", "1 bytes follow the last binary tensor"),
        ((3,), b"\x01\x02\x03", "x0 has 3 bytes, but UINT8 of shape"),
        ((-1,), b"\x01\x02", "neither data nor binary_data_size"),
        (("2",), b"\x01\x02", "neither data nor binary_data_size"),
        ((True,), b"\x01", "neither data nor binary_data_size"),
        ((2.0,), b"\x01\x02", "neither data nor binary_data_size"),
        ((10**30,), b"\x01\x02", "neither data nor binary_data_size"),  # JSON's large integers are floats here
        ((2**40,), b"\x01\x02", "binary_data_size is [0-9]+, but only 2 bytes of the body are left"),
    ],
)
def test_sizes_that_do_not_sum_are_refused(sizes: tuple[Any, ...], tail: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        parse(*binary(*sizes, tail=tail))


@pytest.mark.parametrize("shape", [None, 2, "2", [-1], [0], [2**31], [2.0], [True], ["2"], [None], [[2]], [1] * 9, {}])
def test_a_shape_is_a_short_list_of_positive_sizes(shape: object) -> None:
    with pytest.raises(MalformedRequest, match=r"inputs\.x\.shape") as refusal:
        parse(body(inputs=[tensor(shape=shape)]), None)
    assert refusal.value.field == "inputs.x.shape"


@pytest.mark.parametrize("kind", [None, "uint8", "FP64", "STRING", "", 7, [], {}, ["UINT8"], "x" * 999])
def test_an_unknown_datatype_is_refused_with_the_known_ones(kind: object) -> None:
    with pytest.raises(InvalidInput, match=r"is not one of BOOL, UINT8, INT32, INT64, FP32, BYTES") as refusal:
        parse(body(inputs=[tensor(datatype=kind)]), None)
    assert len(refusal.value.detail) < 150


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"inputs": [NaN]}', "not JSON"),
        (b'{"inputs": [1e999]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (body(inputs={}), "inputs is not a list"),
        (body(inputs="x"), "inputs is not a list"),
        (body(inputs=[7]), r"inputs\[0\] has no name"),
        (body(inputs=[{}]), r"inputs\[0\] has no name"),
        (body(inputs=[tensor(name=7)]), r"inputs\[0\] has no name"),
        (body(inputs=[tensor(), tensor()]), r"inputs\.x is given twice"),
        (body(inputs=[{"name": "x", "datatype": "UINT8", "shape": [2]}]), "neither data nor"),
        (body(inputs=[{"name": "x", "datatype": "UINT8", "shape": [2], "parameters": 7}]), "not an object"),
        (body(outputs={}), "outputs is not a list"),
        (body(outputs=["y"]), r"outputs\[0\] has no name"),
        (body(outputs=[{"name": "y", "parameters": []}]), r"outputs\[0\] is not an object"),
        (body(parameters=[]), "parameters is not an object"),
        (body(id=7), "id is 7; send a string"),
    ],
)
def test_a_body_that_is_no_request_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        parse(raw, None)


@pytest.mark.parametrize("top", [-1, True, 1.5, "3", None, [3]])
def test_classification_is_a_count(top: object) -> None:
    with pytest.raises(InvalidInput, match="send a number of classes"):
        parse(body(outputs=[{"name": "y", "parameters": {"classification": top}}]), None)


def test_no_inputs_are_none() -> None:
    assert parse(b"{}", None).inputs == parse(b'{"inputs": null}', None).inputs == {}


FIELDS = st.sampled_from(
    ["inputs", "outputs", "parameters", "id", "name", "datatype", "shape", "data", "binary_data_size", "x", "UINT8"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats(allow_nan=False) | FIELDS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(FIELDS, parts, max_size=5),
    max_leaves=30,
)


@given(st.dictionaries(FIELDS, JSON, max_size=5), st.binary(max_size=9), st.integers(-2, 2))
def test_anything_is_a_request_or_a_refusal(document: dict[str, Any], tail: bytes, off: int) -> None:
    head = json.dumps(document).encode()
    try:
        parse(head + tail, str(len(head) + off))
    except DuetError as error:
        assert 400 <= error.status < 500  # noqa: PT017


@given(st.binary(max_size=80), st.none() | st.text(max_size=4))
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes, length: str | None) -> None:
    try:
        parse(raw, length)
    except DuetError as error:
        assert 400 <= error.status < 500  # noqa: PT017


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(plain=st.binary(max_size=LIMIT))
def test_compression_goes_both_ways(encoding: str, plain: bytes) -> None:
    assert decompress(compress(plain, encoding), encoding, LIMIT) == plain


def test_compression_is_what_others_call_gzip_and_deflate() -> None:
    assert gzip.decompress(compress(b"abc", "gzip")) == zlib.decompress(compress(b"abc", "deflate")) == b"abc"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_stops_at_the_limit(encoding: str) -> None:
    assert decompress(compress(bytes(LIMIT), encoding), encoding, LIMIT) == bytes(LIMIT)
    for size in (LIMIT + 1, 5_000_000):
        with pytest.raises(TooLarge, match=f"the decompressed body has more than {LIMIT} bytes"):
            decompress(compress(bytes(size), encoding), encoding, LIMIT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_damaged_compression_is_refused(encoding: str) -> None:
    whole = compress(b"some request, not very long", encoding)
    other = compress(b"x", "deflate" if encoding == "gzip" else "gzip")
    for damaged in (b"", b"not compressed", *(whole[:n] for n in range(len(whole))), whole + b"x", other):
        with pytest.raises(MalformedRequest) as refusal:
            decompress(damaged, encoding, LIMIT)
        assert refusal.value.field == "body"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "", "x" * 999])
def test_another_encoding_is_refused_with_those_there_are(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="send gzip or deflate") as refusal:
        decompress(b"", encoding, LIMIT)
    assert len(refusal.value.detail) < 100


def test_an_answer_without_binary_tensors_is_plain_json() -> None:
    raw, length = render({"model_name": "m"}, [("y", np.array([[0.5, 1]], np.float32), False)])
    assert length is None
    assert orjson.loads(raw) == {
        "model_name": "m",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]}],
    }


def test_binary_tensors_follow_the_answers_json_in_order() -> None:
    outputs = [
        ("a", np.array([1], np.float32), True),
        ("b", np.array([True]), False),
        ("c", strings([b"ab", b""]), True),
    ]
    raw, length = render({}, outputs)
    assert length is not None
    a, b, c = orjson.loads(raw[:length])["outputs"]
    assert a["parameters"] == {"binary_data_size": 4}
    assert "data" not in a
    assert (b["data"], "parameters" in b) == ([True], False)
    assert c["parameters"] == {"binary_data_size": 10}
    assert raw[length:] == b"\0\0\x80\x3f" + b"\x02\0\0\0ab" + b"\0\0\0\0"
