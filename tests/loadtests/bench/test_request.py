"""Every protocol carries the same image, and every answer is read alike."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from starlette.requests import Request

from loadtests.bench import colour, request
from services.inference import bundle
from services.inference.session import Session
from services.protocol.images import to_array
from services.protocol.v2 import inference

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), np.uint8)


def test_v2_binary_and_json_hold_the_pixels() -> None:
    binary, text = request.v2_binary("m", IMAGES), request.v2_json("m", IMAGES)
    for asked in (binary, text):
        size = inference.json_size(asked.body, asked.headers.get("Inference-Header-Content-Length"))
        parsed = inference.parse(asked.body, size)
        parsed.read()
        np.testing.assert_array_equal(parsed.inputs["images"], IMAGES)
        assert [output.name for output in parsed.outputs] == ["probabilities"]
        assert (asked.path, asked.items) == ("/v2/models/m/infer", 2)


async def test_an_uploaded_png_holds_the_pixels() -> None:
    asked = request.native_png(IMAGES)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": asked.body}

    headers = [(b"content-type", asked.headers["Content-Type"].encode())]
    async with Request({"type": "http", "headers": headers}, receive).form() as form:
        files = [await part.read() for part in form.getlist("images") if not isinstance(part, str)]
    for file, image in zip(files, IMAGES, strict=True):
        np.testing.assert_array_equal(to_array(file, (1, 28, 28), "images", max_pixels=1000), image)


def test_raw_bytes_of_http_say_their_length() -> None:
    raw = request.native_json(IMAGES[:1], **request.NO_STORE).raw("127.0.0.1:1")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Cache-Control: no-store" in head


def test_answers_of_every_protocol_are_read_alike() -> None:
    row = np.array([0.1, 0.7, 0.2], np.float32)
    output = {"name": "probabilities", "shape": [1, 3]}
    head = json.dumps({"outputs": [output]}).encode()
    assert request.v2_binary("m", IMAGES).read(head + row.tobytes(), len(head)) == (1, pytest.approx(0.7))
    text = json.dumps({"outputs": [output | {"data": row.tolist()}]}).encode()
    assert request.v2_json("m", IMAGES).read(text, 0) == (1, pytest.approx(0.7))
    native = json.dumps({"predictions": [{"index": 1, "probability": 0.7}]}).encode()
    assert request.native_json(IMAGES).read(native, 0) == (1, pytest.approx(0.7))
    assert request.bento_json(IMAGES).read(json.dumps([row.tolist()]).encode(), 0) == (1, pytest.approx(0.7))


def test_a_colour_bundle_is_sound_and_runs(tmp_path: Path) -> None:
    made = colour.bundle_of(64, tmp_path / "bundle")
    found = bundle.load(made.path)
    onnx.checker.check_model(str(found.graph_path("classify")), full_check=True)
    images = np.zeros((3, 3, 64, 64), np.uint8)
    outputs = Session(found.graph_path("classify")).run({"images": images})
    assert outputs["probabilities"].shape == (3, 10)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-5)
