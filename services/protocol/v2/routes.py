"""The V2 routes of one service: functions from a request to an answer, which the gateway measures and sends."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import orjson

from services import __version__
from services.call import Call
from services.dataplane import DataPlane
from services.errors import MalformedRequest, MethodNotAllowed, NotReady, UnknownModel, UnknownRoute
from services.protocol import json_slices
from services.protocol.body import Body
from services.protocol.exchange import Headers, ModelRoute
from services.protocol.json_slices import NotJSON
from services.protocol.raw_response import RawResponse
from services.protocol.services import PROTOCOLS
from services.protocol.v2.frames import split
from services.protocol.v2.inference import JSON, InferRequest, json_size, parse
from services.protocol.v2.outputs import COMPRESSIONS, Endpoint, chosen_outputs, encoded
from services.protocol.v2.signatures import Signature
from services.scheduling.offload import INLINE_BYTES, INLINE_PIXELS

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository(index)")
GET = ("GET", "HEAD")
INLINE_VALUES = 2**16  # of JSON that are converted on the event loop: 1 to 4 ms
INFER = "/v2/models/{model}/infer"  # label of metrics


class V2:
    """Answers everything below `/v2`.

    Args:
        plane: the models; their paths are known once they are loaded.
        server: the server's name in its metadata.
    """

    def __init__(self, plane: DataPlane, server: str) -> None:
        self._plane = plane
        self._server = server
        self._infer: dict[str, Endpoint] = {}

    def _lay_out(self) -> None:
        """Note the infer path of every model, with and without its version, so that a request needs one look-up."""
        if self._infer or not self._plane.loaded:
            return
        for served in self._plane.served:
            endpoint = Endpoint(served, PROTOCOLS[served.entry.task].signature(served.model))
            name, version = served.entry.name, served.entry.version
            if self._plane.defaults.means(served.entry):
                self._infer.setdefault(f"/v2/models/{name}/infer", endpoint)
            self._infer[f"/v2/models/{name}/versions/{version}/infer"] = endpoint

    def label(self, path: str) -> str:
        """The route template of a path, as a metric label."""
        self._lay_out()
        if path in self._infer:
            return INFER
        return "/v2/models" if path.startswith("/v2/models/") else "/v2"

    def routes(self) -> dict[str, ModelRoute]:
        """The infer paths of every model."""
        self._lay_out()
        return {
            path: ModelRoute(INFER, path, partial(self._answer, endpoint)) for path, endpoint in self._infer.items()
        }

    async def answer(self, method: str, path: str, headers: Headers, body: Body, call: Call) -> RawResponse:
        """The answer to a request.

        Raises:
            DuetError: the request is refused.
        """
        self._lay_out()
        endpoint = self._infer.get(path)
        if endpoint is None:
            return self._answer_about(method, path)
        if method != "POST":
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes POST", allowed="POST")
        return await self._answer(endpoint, headers, body, call)

    async def _answer(self, endpoint: Endpoint, headers: Headers, body: Body, call: Call) -> RawResponse:
        if not self._plane.loaded:  # the queues have stopped
            self._plane.check()
        begin = time.perf_counter()
        content = await body.read(call)
        length = headers.get(b"inference-header-content-length")
        size = json_size(content, None if length is None else length.decode("latin-1"))
        text, listed = split(content, size)
        plan = endpoint.plans.find(text, len(content) if listed is None else None)
        request = plan.request(content, listed) if plan is not None else None
        if plan is not None and request is not None:
            outputs, names = plan.outputs, plan.names
            if listed is not None:
                await self._read(request, endpoint.signature, body, call)
        else:
            request = await self._parse(content, size, body, call)
            outputs = chosen_outputs(endpoint.signature, request)
            names = frozenset(output.name for output in outputs)
            await self._read(request, endpoint.signature, body, call)
            plan = endpoint.plans.make(text, request, outputs, framed=listed is not None) if text else None
        call.ended("parse", begin)
        arrays = await endpoint.signature.infer(self._plane, endpoint.served, request, names, call)
        begin = time.perf_counter()
        compressed = headers.get(b"accept-encoding") in COMPRESSIONS
        size = sum([arrays[output.name].size for output in outputs if compressed or not output.binary])
        if size <= INLINE_PIXELS:
            answer = encoded(endpoint, request, outputs, arrays, headers, plan)
        else:
            work = partial(encoded, endpoint, request, outputs, arrays, headers, plan)
            answer = await self._plane.offload.run(work, call)
        call.ended("encode", begin)
        return answer

    async def _parse(self, content: bytes | bytearray, size: int, body: Body, call: Call) -> InferRequest:
        if json_slices.is_short(content[:size]):
            return parse(content, size)
        try:
            return parse(content, size, await body.parse(content[:size], call))
        except NotJSON as error:
            raise MalformedRequest(f"the body is not JSON: {error}", field="body") from None

    async def _read(self, request: InferRequest, signature: Signature, body: Body, call: Call) -> None:
        if body.size > INLINE_BYTES:  # smaller ones are converted in no time, whatever they declare
            request.check_counts(self._plane.settings.request_items, signature.item_values)
        if request.size > INLINE_VALUES:
            await self._plane.offload.run(request.read, call)
        else:
            request.read()

    def _answer_about(self, method: str, path: str) -> RawResponse:
        """Health, metadata and the index of models."""
        allowed, about = self._find(path)
        if method not in allowed:
            methods = ", ".join(allowed)
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes {methods}", allowed=methods)
        return RawResponse(200, [(b"content-type", JSON)], orjson.dumps(about()))

    def _find(self, path: str) -> tuple[tuple[str, ...], Callable[[], object]]:
        """The methods that a path takes, and the function that answers.

        Raises:
            UnknownModel, UnknownRoute.
        """
        match path.strip("/").split("/")[1:]:
            case []:
                return GET, self._server_metadata
            case ["health", "live"]:
                return GET, lambda: {"live": True}
            case ["health", "ready"]:
                return GET, self._readiness
            case ["repository", "index"]:
                return ("POST",), self._index
            case ["models", name, *rest]:
                version = ""
                if rest[:1] == ["versions"] and len(rest) > 1:
                    version, rest = f"/versions/{rest[1]}", rest[2:]
                endpoint = self._infer.get(f"/v2/models/{name}{version}/infer")
                if endpoint is None:
                    tag = f"{name}{version.replace('/versions/', ':')}"
                    self._plane.check_damage(tag)
                    known = ", ".join(served.entry.tag for served in self._plane.served) or "none"
                    raise UnknownModel(f"model {tag[:80]!r} is not served here; served are {known}", field="model")
                if rest == ["ready"]:
                    return GET, lambda: {"name": name, "ready": True}
                if not rest:
                    return GET, lambda: self._model_metadata(endpoint)
        raise UnknownRoute(f"{path[:100]}: no such route; below /v2 there are health, models and repository/index")

    def _readiness(self) -> object:
        self._plane.check()
        if self._plane.draining:
            raise NotReady("draining: this replica is about to stop", retry_after=1.0)
        return {"ready": True}

    def _server_metadata(self) -> object:
        return {"name": f"duet-{self._server}", "version": __version__, "extensions": EXTENSIONS}

    def _index(self) -> object:
        damaged = self._plane.damaged
        return [
            {
                "name": entry.name,
                "version": entry.version,
                "state": "UNAVAILABLE" if entry.tag in damaged else "READY",
                "reason": damaged.get(entry.tag, ""),
            }
            for entry in self._plane.entries
            if self._plane.loaded
        ]

    def _model_metadata(self, endpoint: Endpoint) -> object:
        entry, bundle = endpoint.served.entry, endpoint.served.model.bundle
        statistics = {"statistics": bundle.manifest.statistics} if bundle.manifest.statistics else {}
        return {
            "name": entry.name,
            "versions": [served.entry.version for served in self._plane.served if served.entry.name == entry.name],
            "platform": "onnxruntime_onnx",
            "inputs": [tensor.metadata() for tensor in endpoint.signature.inputs],
            "outputs": [tensor.metadata() for tensor in endpoint.signature.outputs],
            "parameters": {
                "digest": bundle.digest,
                "task": bundle.manifest.task,
                "class_names": bundle.manifest.class_names,
                **statistics,
                "images": "also FP32 pixels in 0..1, and BYTES [n] of PNG or JPEG files",
                "cache": {
                    operation: {
                        "admission": worth.admission,
                        "item_seconds": worth.item_seconds,
                        "redis_round_trip_seconds": worth.round_trip_seconds,
                        "redis_from_items": worth.from_items,
                        "computed_once_in_all": worth.leases,
                    }
                    for operation, worth in endpoint.served.estimates().items()
                },
            },
        }
