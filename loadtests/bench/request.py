"""The same images in every protocol under test, and how each answer is read to check it before it is timed."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from PIL import Image

NO_STORE = {"Cache-Control": "no-store"}
Read = Callable[[bytes, int], tuple[int, float]]


@dataclass(frozen=True)
class Request:
    """A POST with a fixed body.

    Attributes:
        read: (body, length of the JSON part of a V2 binary answer) -> class and probability of the first image.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    items: int
    read: Read = field(compare=False)

    def raw(self, host: str) -> bytes:
        """The request as HTTP/1.1 bytes."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def v2_binary(model: str, images: np.ndarray, **headers: str) -> Request:
    """Images uint8 [N,C,H,W] as a binary tensor, probabilities back as one."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape}
    head = orjson.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": images.nbytes}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    )
    fields = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request(_infer(model), fields | headers, head + images.tobytes(), len(images), _read_v2_binary)


def v2_json(model: str, images: np.ndarray, **headers: str) -> Request:
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
    body = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]})
    return Request(_infer(model), JSON | headers, body, len(images), _read_v2_json)


def native_json(images: np.ndarray, **headers: str) -> Request:
    """Nested lists of numbers, as the stock service gets them."""
    return Request("/classify", JSON | headers, orjson.dumps({"images": images.tolist()}), len(images), _read_native)


def native_png(images: np.ndarray, **headers: str) -> Request:
    """One uploaded PNG file an image."""
    boundary = "duet-benchmark"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{i}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + png(image)
        + b"\r\n"
        for i, image in enumerate(images)
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    fields = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return Request("/classify", fields | headers, body, len(images), _read_native)


def bento_json(images: np.ndarray) -> Request:
    """BentoML's own JSON for an API method `classify(images: np.ndarray) -> np.ndarray`."""
    return Request("/classify", JSON, orjson.dumps({"images": images.tolist()}), len(images), read_rows)


def base64_json(path: str, images: np.ndarray) -> Request:
    """Pixels as base64 in JSON: the densest that a JSON-only server takes."""
    body = json.dumps({"images": base64.b64encode(images.tobytes()).decode(), "shape": images.shape})
    return Request(path, JSON, body.encode(), len(images), read_rows)


def raw_bytes(path: str, images: np.ndarray) -> Request:
    """Nothing but pixels, float32 probabilities back."""
    return Request(path, {"Content-Type": "application/octet-stream"}, images.tobytes(), len(images), _read_floats)


JSON = {"Content-Type": "application/json"}


def png(image: np.ndarray) -> bytes:
    """uint8 [1,H,W] or [3,H,W] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def _infer(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _best(row: Any) -> tuple[int, float]:
    row = np.asarray(row, np.float32)
    return int(row.argmax()), float(row.max())


def _read_v2_binary(body: bytes, json_length: int) -> tuple[int, float]:
    (output,) = json.loads(body[:json_length])["outputs"]
    return _best(np.frombuffer(body[json_length:], "<f4").reshape(output["shape"])[0])


def _read_v2_json(body: bytes, json_length: int) -> tuple[int, float]:
    (output,) = json.loads(body)["outputs"]
    return _best(np.reshape(output["data"], output["shape"])[0])


def _read_native(body: bytes, json_length: int) -> tuple[int, float]:
    first = json.loads(body)["predictions"][0]
    return first["index"], first["probability"]


def read_rows(body: bytes, json_length: int) -> tuple[int, float]:
    return _best(json.loads(body)[0])


def _read_floats(body: bytes, json_length: int) -> tuple[int, float]:
    return _best(np.frombuffer(body, "<f4")[:10])
