"""A fourth task takes two modules and a row in each of two tables: an embedding of images, by both protocols.

`Embedder` would be services/inference/embedder.py, and the rest services/protocol/native/embedding.py; the rows are in
services/inference/bundle.py and services/protocol/services.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from services.call import Call
from services.dataplane import DataPlane
from services.inference import registry
from services.inference.bundle import TASKS, Bundle, Task
from services.inference.session import Arrays, Session
from services.protocol import services as table
from services.protocol.gateway import Gateway
from services.protocol.image_input import read_images
from services.protocol.native.answers import ModelRef
from services.protocol.native.rendering import model_ref
from services.protocol.native.requests import Images, Name, Request
from services.protocol.native.routes import Route
from services.protocol.services import TaskProtocols, routes_of
from services.protocol.v2.arguments import given_images
from services.protocol.v2.inference import InferRequest
from services.protocol.v2.signatures import Signature, Tensor
from services.served import Served
from tests.services.dataplane.planes import running


class Embedder:
    """`embed`: images uint8 [N,C,H,W] -> vector float32 [N,D]."""

    task: ClassVar[Task] = "embedding"
    operations = ("embed",)
    estimated_operations: ClassVar[Mapping[str, tuple[int, Arrays]]] = {}

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.bundle = bundle
        self._graph = Session(bundle.graph_path("classify"), threads=threads)

    def run(self, operation: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"vector": self._graph.run(inputs, ("logits",))["logits"]}

    def example(self, operation: str) -> Arrays:
        return {"images": np.zeros((1, *self.bundle.manifest.image.shape), np.uint8)}


class EmbedRequest(Request):
    images: Images
    model: Name = None


class EmbedResponse(Request):
    model: ModelRef
    vectors: list[list[float]]


async def embed(plane: DataPlane, request: EmbedRequest, call: Call) -> EmbedResponse:
    """Embed images as vectors."""
    served = plane.select(Embedder, "embed", request.model)
    images = await read_images(request.images, served, plane, call)
    vectors = (await served.infer("embed", {"images": images}, call))["vector"]
    return EmbedResponse(model=model_ref(served), vectors=vectors.tolist())


async def infer(
    plane: DataPlane, served: Served[Embedder], request: InferRequest, wanted: Collection[str], call: Call
) -> Arrays:
    images = await given_images(request.inputs, served, plane, call)
    return await served.infer("embed", {"images": images}, call)


def signature(model: Embedder) -> Signature:
    images = Tensor("images", "UINT8", (-1, *model.bundle.manifest.image.shape))
    return Signature((images,), (Tensor("vector", "FP32", (-1, 3)),), infer, ())


PROTOCOLS = TaskProtocols((Route("/embed", embed, EmbedResponse),), signature)


async def ask(plane: DataPlane, path: str, document: dict[str, Any]) -> Any:
    sent = []
    messages = iter([{"type": "http.request", "body": json.dumps(document).encode(), "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await Gateway(send, plane, routes_of(plane.tasks), "embedding")(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return json.loads(b"".join(message["body"] for message in sent[1:]))


async def test_it_is_served_by_both_protocols(
    empty_store: Path, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "embedding", f"{__name__}:Embedder")
    monkeypatch.setitem(table.PROTOCOLS, "embedding", PROTOCOLS)
    registry.store(make_bundle(task="embedding", name="tiny-embedder"))
    image = [[1, 2], [3, 4]]
    async with running("embedding") as plane:
        assert plane.ready, plane.problems
        native = await ask(plane, "/embed", {"images": [image, image]})
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": image}
        v2 = await ask(plane, "/v2/models/tiny-embedder/infer", {"inputs": [tensor]})
    assert (native["model"]["name"], native["vectors"]) == ("tiny-embedder", [[10, 10, 10]] * 2)
    assert v2["outputs"] == [{"name": "vector", "datatype": "FP32", "shape": [1, 3], "data": [10, 10, 10]}]
