"""A data plane over the trained models, and V2 requests to it without a server between."""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from PIL import Image

from services.call import Call
from services.dataplane import DataPlane
from services.protocol.v2.routes import V2
from tests.services.protocol.bodies import arriving
from training.data.digits import load_digits

NUMPY = {"BOOL": "?", "UINT8": "u1", "INT64": "<i8", "FP32": "<f4"}
NAMES = {np.dtype(dtype): name for name, dtype in NUMPY.items()}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def plane(model_store: Path) -> AsyncIterator[DataPlane]:
    """All tasks of the trained store; cheap enough to start once, and only asked things."""
    BentoMLContainer.model_store.set(ModelStore(model_store / "models"))
    plane = DataPlane(["generation", "classification", "anomaly"])
    BentoMLContainer.model_store.reset()
    await plane.start()
    assert plane.ready, plane.problems
    yield plane
    await plane.stop()


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """Eight images of the test split, uint8 [8,1,28,28]."""
    return load_digits().test.images[:8]


@pytest.fixture(scope="session")
def files(digits: np.ndarray) -> list[bytes]:
    """The same images as PNG files."""
    streams = [io.BytesIO() for _ in digits]
    for image, stream in zip(digits, streams, strict=True):
        Image.fromarray(image[0]).save(stream, "PNG")
    return [stream.getvalue() for stream in streams]


@dataclass
class Reply:
    """An answer: its JSON, its tensors, its headers."""

    about: dict[str, Any]
    outputs: dict[str, np.ndarray]
    headers: dict[str, str]
    body: bytes
    call: Call


Ask = Callable[..., Awaitable[Reply]]


def encoded(inputs: dict[str, Any], document: dict[str, Any], *, binary: bool) -> tuple[bytes, dict[bytes, bytes]]:
    """A body by the book, written without any code that is tested."""
    specs, tail = [], b""
    for name, array in inputs.items():
        if isinstance(array, list):
            raw = b"".join(len(value).to_bytes(4, "little") + value for value in array)
            spec = {"name": name, "datatype": "BYTES", "shape": [len(array)]}
        else:
            raw = array.tobytes()
            spec = {"name": name, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
        if binary:
            spec["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            spec["data"] = [value.decode() for value in array] if isinstance(array, list) else array.tolist()
        specs.append(spec)
    head = json.dumps({"inputs": specs} | document).encode()
    return head + tail, {b"inference-header-content-length": str(len(head)).encode()} if binary else {}


def decoded(body: bytes, headers: dict[str, str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    size = int(headers.get("inference-header-content-length", len(body)))
    about, at, outputs = json.loads(body[:size]), size, {}
    for spec in about["outputs"]:
        shape = spec["shape"]
        raw_size = spec.get("parameters", {}).get("binary_data_size")
        if raw_size is None:
            outputs[spec["name"]] = np.array(spec["data"], NUMPY.get(spec["datatype"], object)).reshape(shape)
            continue
        raw, at = body[at : at + raw_size], at + raw_size
        if spec["datatype"] == "BYTES":
            values = []
            while raw:
                size = int.from_bytes(raw[:4], "little")
                values.append(raw[4 : 4 + size].decode())
                raw = raw[4 + size :]
            outputs[spec["name"]] = np.array(values, object).reshape(shape)
        else:
            outputs[spec["name"]] = np.frombuffer(raw, NUMPY[spec["datatype"]]).reshape(shape)
    assert at == len(body)
    return about, outputs


@pytest.fixture
def ask(plane: DataPlane) -> Ask:
    """Infer with a model: `ask("digits-cnn", {"images": ...}, outputs=[...])`; the cache is left out."""
    v2 = V2(plane, "tested")

    async def infer(
        model: str,
        inputs: dict[str, Any],
        *,
        binary: bool = True,
        headers: dict[str, str] | None = None,
        cached: bool = False,
        **document: Any,
    ) -> Reply:
        body, length = encoded(inputs, document, binary=binary)
        raw = length | {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
        call = Call(time.monotonic() + 60, read_cache=cached, write_cache=cached)

        answer = await v2.answer("POST", f"/v2/models/{model}/infer", raw, arriving(body), call)
        assert answer.status == 200
        named = {name.decode(): value.decode() for name, value in answer.headers}
        if "content-encoding" in named:
            return Reply({}, {}, named, answer.body, call)
        return Reply(*decoded(answer.body, named), named, answer.body, call)

    return infer
