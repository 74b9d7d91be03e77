"""Malformed V2 requests against a real server: each is refused with a reason, and harms nobody after it."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from services.settings import Settings
from training.data.digits import load_digits

pytestmark = pytest.mark.server

BODY_BYTES = int(Settings.model_fields["body_bytes"].default)
IMAGE = load_digits().test.images[:1]
RAW = IMAGE.tobytes()
FLAT = IMAGE.ravel().tolist()
LENGTH = "Inference-Header-Content-Length"

Sent = tuple[bytes, dict[str, str]]  # a body and its headers


def tensor(**fields: Any) -> dict[str, Any]:
    """A good JSON input, but for `fields`; None leaves one out."""
    spec = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": FLAT} | fields
    return {name: value for name, value in spec.items() if value is not None}


def document(*inputs: Any, **members: Any) -> Sent:
    return json.dumps({"inputs": list(inputs or [tensor()])} | members).encode(), {}


def binary(tail: bytes = RAW, size: object = len(RAW), **fields: Any) -> Sent:
    head, _ = document(tensor(data=None, parameters={"binary_data_size": size}, **fields))
    return head + tail, {LENGTH: str(len(head))}


def elements(raw: bytes, count: int = 1) -> Sent:
    """A BYTES tensor."""
    return binary(raw, len(raw), datatype="BYTES", shape=[count])


def length(value: str) -> Sent:
    return document()[0], {LENGTH: value}


def shaped(shape: object) -> Sent:
    return document(tensor(shape=shape))


def valued(data: object, **fields: Any) -> Sent:
    return document(tensor(data=data, **fields))


def deep(levels: int) -> Sent:
    return b'{"inputs": ' + b"[" * levels + b"]" * levels + b"}", {}


def packed(raw: bytes, encoding: str) -> Sent:
    return raw, {"Content-Encoding": encoding}


GOOD = document()[0]
MALFORMED: dict[str, tuple[Sent, int, str]] = {  # what is sent, the status, and the field that the answer names
    "negative header length": (length("-1"), 400, LENGTH),
    "header length beyond the body": (length("999999"), 400, LENGTH),
    "header length one beyond the body": (length(str(len(GOOD) + 1)), 400, LENGTH),
    "header length in words": (length("ten"), 400, LENGTH),
    "fractional header length": (length("10.0"), 400, LENGTH),
    "empty header length": (length(""), 400, LENGTH),
    "header length of thousands of digits": (length("9" * 5000), 400, LENGTH),
    "header length that cuts the JSON": (length("20"), 400, "body"),
    "header length zero": (length("0"), 400, "body"),
    "fewer bytes than announced": (binary(RAW[:-1]), 400, "inputs.images"),
    "more bytes than announced": (binary(RAW + b"x"), 400, "body"),
    "announced size other than the shape's": (binary(RAW[:-1], len(RAW) - 1), 400, "inputs.images"),
    "negative size": (binary(RAW, -784), 400, "inputs.images.data"),
    "size as text": (binary(RAW, "784"), 400, "inputs.images.data"),
    "size as boolean": (binary(b"x", True), 400, "inputs.images.data"),
    "BYTES cut within an element": (elements(b"\x09\0\0\0four"), 400, "inputs.images"),
    "BYTES cut within a length": (elements(b"\x09\0"), 400, "inputs.images"),
    "BYTES of another count": (elements(b"\0\0\0\0" * 3, 2), 400, "inputs.images"),
    "BYTES of 4 GB": (elements(b"\xff\xff\xff\xff"), 400, "inputs.images"),
    "BYTES that are no image": (elements(b"\x04\0\0\0four"), 422, "inputs.images[0]"),
    "shape with a negative size": (shaped([-1, 1, 28, 28]), 400, "inputs.images.shape"),
    "shape with zero": (shaped([0, 1, 28, 28]), 400, "inputs.images.shape"),
    "shape with a huge size": (shaped([2**62, 1, 28, 28]), 400, "inputs.images.shape"),
    "shape with large sizes": (shaped([2**31 - 1] * 8), 400, "inputs.images"),
    "shape with a float": (shaped([1.0, 1, 28, 28]), 400, "inputs.images.shape"),
    "shape with a boolean": (shaped([True, 1, 28, 28]), 400, "inputs.images.shape"),
    "shape with text": (shaped(["1", 1, 28, 28]), 400, "inputs.images.shape"),
    "shape that is no list": (shaped("1,1,28,28"), 400, "inputs.images.shape"),
    "shape of a hundred axes": (shaped([1] * 100), 400, "inputs.images.shape"),
    "no shape": (shaped(None), 400, "inputs.images.shape"),
    "shape of other images": (valued(FLAT[:81], shape=[1, 1, 9, 9]), 422, "inputs.images"),
    "data of another count": (valued(FLAT[1:]), 400, "inputs.images"),
    "ragged data": (valued([FLAT[:392], FLAT[391:]]), 422, "inputs.images"),
    "data that is no list": (valued("7"), 400, "inputs.images.data"),
    "neither data nor bytes": (valued(None), 400, "inputs.images.data"),
    "text for numbers": (valued(["7", *FLAT[1:]]), 422, "inputs.images"),
    "true for a number": (valued([True, *FLAT[1:]]), 422, "inputs.images"),
    "null for a number": (valued([None, *FLAT[1:]]), 422, "inputs.images"),
    "an object for a number": (valued([{}, *FLAT[1:]]), 422, "inputs.images"),
    "a number above its datatype": (valued([256, *FLAT[1:]]), 422, "inputs.images"),
    "a fraction in UINT8": (valued([0.5, *FLAT[1:]]), 422, "inputs.images"),
    "a number beyond FP32": (valued([1e39, *FLAT[1:]], datatype="FP32"), 422, "inputs.images"),
    "a number beyond all": ((GOOD.replace(b'"data": [0', b'"data": [1e999'), {}), 400, "body"),
    "a NaN literal": (valued([float("nan"), *FLAT[1:]], datatype="FP32"), 400, "body"),
    "an Infinity literal": (valued([float("inf"), *FLAT[1:]], datatype="FP32"), 400, "body"),
    "an unknown datatype": (document(tensor(datatype="FP8")), 422, "inputs.images.datatype"),
    "a datatype that is a list": (document(tensor(datatype=["UINT8"])), 422, "inputs.images.datatype"),
    "a datatype that the model does not take": (document(tensor(datatype="INT64")), 422, "inputs.images"),
    "an unknown input": (document(tensor(name="pictures")), 422, "inputs"),
    "an input without a name": (document(tensor(name=None)), 400, "inputs[0].name"),
    "an input that is no object": (document(7), 400, "inputs[0].name"),
    "an input twice": (document(tensor(), tensor()), 400, "inputs.images"),
    "no inputs": (document(inputs=[]), 422, "inputs.images"),
    "null for inputs": (document(inputs=None), 422, "inputs.images"),
    "inputs that are no list": (document(inputs=tensor()), 400, "inputs"),
    "an unknown output": (document(outputs=[{"name": "nope"}]), 422, "outputs[0].name"),
    "an output twice": (document(outputs=[{"name": "label"}] * 2), 422, "outputs[1].name"),
    "outputs that are no list": (document(outputs={"name": "label"}), 400, "outputs"),
    "an output that is no object": (document(outputs=["label"]), 400, "outputs[0].name"),
    "parameters that are no object": (document(parameters=[]), 400, "parameters"),
    "an id that is no text": (document(id=7), 400, "id"),
    "a body that is a list": ((b"[]", {}), 400, "body"),
    "a body that is null": ((b"null", {}), 400, "body"),
    "an empty body": ((b"", {}), 400, "body"),
    "a body that is no JSON": ((b"{", {}), 400, "body"),
    "a body that is no text": ((b"\xff\xfe{}", {}), 400, "body"),
    "JSON 900 deep": (deep(900), 400, "inputs[0].name"),
    "JSON a hundred thousand deep": (deep(100_000), 400, "body"),
    "gzip cut short": (packed(gzip.compress(GOOD)[:-9], "gzip"), 400, "body"),
    "gzip and more": (packed(gzip.compress(GOOD) + b"x", "gzip"), 400, "body"),
    "deflate called gzip": (packed(zlib.compress(GOOD), "gzip"), 400, "body"),
    "gzip called deflate": (packed(gzip.compress(GOOD), "deflate"), 400, "body"),
    "nothing called gzip": (packed(b"", "gzip"), 400, "body"),
    "plain text called gzip": (packed(GOOD, "gzip"), 400, "body"),
    "brotli": (packed(GOOD, "br"), 415, "Content-Encoding"),
    "an encoding twice": (packed(GOOD, "gzip, gzip"), 415, "Content-Encoding"),
    "a timeout in words": ((GOOD, {"X-Request-Timeout-Ms": "soon"}), 422, "X-Request-Timeout-Ms"),
    "pickle": ((GOOD, {"Content-Type": "application/vnd.bentoml+pickle"}), 415, "Content-Type"),
}


@pytest.fixture
def unharmed(server: Any) -> Any:
    """After the test the server still answers right, and met no error that nobody foresaw."""
    good = ("/v2/models/digits-cnn/infer", {"inputs": [tensor()]})
    server.answers(*good)
    before = server.surprises()
    yield
    server.answers(*good)
    assert server.surprises() == before


def refused(answer: httpx.Response, status: int, at: str | None) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem.get("field")) == (status, status, at), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["error"] == problem["detail"]
    assert len(problem["detail"]) < 300
    assert not {"Traceback", "None", "True", "Error", "numpy"} & set(problem["detail"].replace("'", " ").split())


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused(server: Any, name: str) -> None:
    (body, headers), status, at = MALFORMED[name]
    refused(server.client.post("/v2/models/digits-cnn/infer", content=body, headers=headers), status, at)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("wbits", [31, 15])
def test_a_gigabyte_of_zeros_is_refused_while_it_unfolds(server: Any, wbits: int) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, wbits)
    begin, block = [deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    bomb = begin + 63 * block
    headers = {"Content-Encoding": "gzip" if wbits == 31 else "deflate"}
    refused(server.client.post("/v2/models/digits-cnn/infer", content=bomb, headers=headers), 413, "body")


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_refused_also_in_chunks(server: Any, chunked: bool) -> None:
    large = b" " * (BODY_BYTES + 1)
    chunks = (large[at : at + 2**16] for at in range(0, len(large), 2**16))
    # A server that answers early may close before all is sent.
    answer = server.client.post("/v2/models/digits-cnn/infer", content=chunks if chunked else large)
    refused(answer, 413, "body")


@pytest.mark.usefixtures("unharmed")
def test_many_outputs_do_not_multiply_the_answer(server: Any) -> None:
    body, headers = document(outputs=[{"name": "probabilities"}] * 100_000)
    refused(server.client.post("/v2/models/digits-cnn/infer", content=body, headers=headers), 422, "outputs[1].name")


def conversation(server: Any, sent: bytes) -> bytes:
    """All that the server says to these bytes until it closes."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as wire:
        wire.sendall(sent)
        heard = b""
        while part := wire.recv(2**16):
            heard += part
    return heard


@pytest.mark.usefixtures("unharmed")
def test_a_body_that_never_comes_is_504_at_its_deadline(server: Any) -> None:
    head = (
        b"POST /v2/models/digits-cnn/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"X-Request-Timeout-Ms: 200\r\nContent-Length: 100\r\n\r\n{"
    )
    heard = conversation(server, head)
    assert heard.startswith(b"HTTP/1.1 504 ")
    assert b"the body did not arrive before the deadline" in heard


@pytest.mark.usefixtures("unharmed")
def test_a_caller_that_leaves_while_it_sends_harms_nobody(server: Any) -> None:
    address = urlsplit(server.url)
    for _ in range(20):
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as wire:
            wire.sendall(b"POST /v2/models/digits-cnn/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
