"""A bad request and the answer that it must get, and the good ones that bad ones are made of."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from services.settings import Settings
from training.data.digits import load_digits

LIMITS = Settings.model_fields
BODY_BYTES = int(LIMITS["body_bytes"].default)
ITEMS = int(LIMITS["request_items"].default)
ROUTES = ("/classify", "/generate", "/interpolate", "/reconstruct", "/score")

DIGITS = load_digits().test
IMAGE, LABEL = DIGITS.images[0, 0].tolist(), DIGITS.labels[0]
GOOD: dict[str, dict[str, Any]] = {
    "/classify": {"images": [IMAGE]},
    "/generate": {"count": 2, "seed": 7},
    "/interpolate": {"images": [IMAGE, IMAGE], "steps": 3},
    "/reconstruct": {"images": [IMAGE]},
    "/score": {"images": [IMAGE]},
}


def png(width: int = 28, height: int = 28) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(width * height, dtype=np.uint8).reshape(height, width)).save(out, "PNG")
    return out.getvalue()


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def deep(levels: int) -> str:
    return "[" * levels + "0" + "]" * levels


def multipart(*parts: tuple[str, bytes], boundary: str = "cut", end: bool = True) -> bytes:
    """A multipart body of (Content-Disposition's parameters, content) parts."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data{parameters}\r\n\r\n".encode() + content + b"\r\n"
        for parameters, content in parts
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


@dataclass(frozen=True)
class Case:
    """One bad request and the answer it must get."""

    name: str
    status: int
    field: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    method: str = "POST"
    path: str | None = None
    chunked: bool = False
    allow: str | None = None

    def content(self) -> bytes | Iterator[bytes] | None:
        if self.body is None or not self.chunked:
            return self.body
        return (self.body[start : start + 2**20] for start in range(0, len(self.body), 2**20))


def raw(name: str, status: int, field: str | None, body: bytes | str, **more: Any) -> Case:
    return Case(name, status, field, body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass"), **more)


def form(name: str, status: int, field: str | None, *parts: tuple[str, bytes], end: bool = True) -> Case:
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    return Case(name, status, field, multipart(*parts, end=end), headers)
