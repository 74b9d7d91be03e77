"""Questions that a server with a cache is asked: what they are about, and every form in which they travel."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from PIL import Image

Request = tuple[str, dict[str, Any]]  # path, and httpx's options
Make = Callable[[np.ndarray], Request]

CNN, SCORER, VAE, GAN = "digits-cnn", "digits-scorer", "digits-vae", "digits-gan"
NO_STORE = {"Cache-Control": "no-store"}
HIT, MISS = "hit; hits=2/2", "miss; hits=0/2"


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


def generation(**fields: Any) -> Request:
    return "/generate", {"json": fields}


def v2_generation(model: str, inputs: dict[str, list[int]], **parameters: Any) -> Request:
    tensors = [{"name": name, "datatype": "INT64", "shape": [len(data)], "data": data} for name, data in inputs.items()]
    return f"/v2/models/{model}/infer", {"json": {"inputs": tensors, "parameters": parameters}}
