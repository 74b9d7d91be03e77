"""The native protocol: routes that take JSON or multipart files and answer in readable JSON or PNG."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Generic, TypeVar, get_type_hints

import bentoml
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from services.call import Call
from services.dataplane import DataPlane
from services.errors import CallerLeft, InvalidInput, MalformedRequest, TooLarge, UnsupportedMedia
from services.protocol import json_slices
from services.protocol.body import Body
from services.protocol.headers import call_headers
from services.protocol.problems import problem, refusal
from services.protocol.raw_response import RawResponse
from services.protocol.stream import Stream
from services.scheduling.offload import INLINE_BYTES
from services.settings import Settings
from services.shims import request_schema, too_many_files
from services.tasks.limits import check_count
from services.telemetry import metrics

Q = TypeVar("Q", bound=BaseModel)
Handler = Callable[[DataPlane, Q, Call], Awaitable[BaseModel | Response]]
RawHeaders = Mapping[bytes, bytes]

CHUNK = 2**16  # bytes of a form that are parsed at once


class Input(request_schema()):  # type: ignore[misc]  # BentoML is untyped
    """A request schema that leaves parsing to `Route`; BentoML's page and its clients get the schema."""

    __root_input__ = True

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Request:
        return request

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super().model_json_schema(*args, **kwargs)
        schema.pop("root_input", None)  # callers send the fields, not one object
        return schema


@dataclass(frozen=True)
class Route(Generic[Q]):
    """A path of the native protocol.

    Args:
        path: always for POST.
        handler: `(plane, request, call) -> answer`; its docstring is the route's description.
        answer: the schema of the answer.
    """

    path: str
    handler: Handler[Q]
    answer: type[BaseModel]

    @cached_property
    def schema(self) -> type[Q]:
        """The schema of the request: the handler's annotation."""
        schema: type[Q] = get_type_hints(self.handler)["request"]
        return schema

    async def respond(self, plane: DataPlane, headers: RawHeaders, body: Body, call: Call) -> Response | RawResponse:
        """Answer one request.

        Raises:
            DuetError: the request is refused.
        """
        with call.stage("parse"):
            parsed = await _parse(headers, body, self.schema, plane, call)
        answer = await self.handler(plane, parsed, call)
        with call.stage("encode"):
            response: Response | RawResponse = answer if isinstance(answer, Response) else _json(answer)
        if isinstance(response, Stream):
            response.route = self.path  # it is not finished: the stream observes its own stages
        else:
            for stage, seconds in call.seconds.items():
                metrics.STAGE_SECONDS.labels(self.path, stage).observe(seconds)
        written = response.headers if isinstance(response, RawResponse) else response.raw_headers
        written.extend(call_headers(call))
        return response

    def api(self) -> Any:
        """The route as a BentoML API method of a class that has a `plane`, for requests that pass BentoML's layers."""
        schema = self.schema
        spec = type(schema.__name__, (Input, schema), {"__module__": schema.__module__, "__doc__": schema.__doc__})

        async def endpoint(service: Any, request: Request, /) -> Response:
            headers, body, call = request.scope["duet"]  # from the gateway
            try:
                answer = await self.respond(service.plane, headers, body, call)
            except Exception as error:  # BentoML would answer with a body of its own
                return problem(refusal(error, self.path, call.id))
            return answer if isinstance(answer, Response) else answer.response()

        endpoint.__name__ = self.path.strip("/")
        endpoint.__doc__ = self.handler.__doc__
        return bentoml.api(endpoint, route=self.path, input_spec=spec, output_spec=self.answer)


def _json(answer: BaseModel) -> RawResponse:
    fields = answer.model_dump(by_alias=True, exclude_none=True)
    body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)  # pixels stay arrays until here
    return RawResponse(200, [(b"content-type", b"application/json")], body)


async def _parse(headers: RawHeaders, body: Body, schema: type[Q], plane: DataPlane, call: Call) -> Q:
    content_type = headers.get(b"content-type", b"application/json").decode("latin-1")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        chunks = _whole(await body.read(call)) if body.compressed else _chunks(body)
        form = _form(content_type, chunks, plane.settings.request_items)
        parts = await (form if body.arrived else call.within(form, "the body did not arrive"))
        fields = await plane.offload.run_if_large(partial(_fields, parts, schema), call, body.size, INLINE_BYTES)
    elif media_type == "application/json":
        text = await body.read(call)
        fields = await _object(text, body, plane, call)
    else:
        raise UnsupportedMedia(
            f"Content-Type is {media_type[:60]!r}; send application/json or multipart/form-data",
            field="Content-Type",
        )
    if body.size > INLINE_BYTES:
        fields = _bounded(fields, schema, plane.settings)
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError, *above: str | int) -> InvalidInput:
    """The first error of a validation; `above` is the place of what was validated."""
    first = error.errors(include_url=False)[0]
    place = (*above, *first["loc"])
    # The location also has tags of a union's members, which are not fields of the request.
    name, indices = place[:1], [part for part in place[1:] if isinstance(part, int)]
    field = "".join([str(name[0])[:60], *(f"[{index}]" for index in indices)]) if name else None
    came = "" if first["type"] in ("missing", "value_error") else f"; got {_short(first['input'])}"
    where = f"{field}: " if field else ""
    return InvalidInput(f"{where}{first['msg'].removeprefix('Value error, ')}{came}", field=field)


def _short(value: object) -> str:
    if isinstance(value, bytes | list | dict):  # may be as long as the body
        return {bytes: "a file", list: "a list", dict: "an object"}[type(value)]
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


async def _object(text: bytes | bytearray, body: Body, plane: DataPlane, call: Call) -> dict[str, Any]:
    try:
        fields = await body.parse(text, call)
    except json_slices.NotJSON as refused:  # orjson is three times as fast, but refuses NaN, which gets its own message
        try:
            if len(text) > INLINE_BYTES:
                raise refused
            fields = from_json(text)
        except ValueError as error:
            raise MalformedRequest(f"the body is not JSON: {error}", field="body") from None
    if not isinstance(fields, dict):
        raise MalformedRequest("the body is JSON, but not an object; send a JSON object", field="body")
    return fields


def _bounded(fields: dict[str, Any], schema: type[BaseModel], settings: Settings) -> dict[str, Any]:
    """The fields of a large request before they are validated, because that takes time for each member.

    Raises:
        TooLarge: a list has more members than any request may have.
    """
    for name, value in fields.items():
        if isinstance(value, list):
            most = settings.request_items if name == "images" else max(settings.request_items, settings.stream_items)
            check_count(len(value), name[:60], most)
    if len(fields) <= len(schema.model_fields):
        return fields
    known = {info.alias or name for name, info in schema.model_fields.items()}
    unknown = next(name for name in fields if name not in known)
    return {name: value for name, value in fields.items() if name in known} | {unknown: fields[unknown]}


class InMemory(MultiPartParser):
    """Keeps files in memory, where the budget of all bodies bounds them; Starlette moves large ones to the disk."""

    spool_max_size = 2**62


async def _form(content_type: str, chunks: AsyncGenerator[bytes, None], max_items: int) -> dict[str, list[str | bytes]]:
    """The parts of a form by name; files become bytes."""
    try:
        parser = InMemory(
            Headers({"content-type": content_type}), chunks, max_files=max_items + 1, max_fields=max_items + 16
        )
        form = await parser.parse()
    except ValueError:  # the charset names a codec that cannot decode text, such as charset=undefined
        raise MalformedRequest("the multipart body cannot be read in the charset that it names", field="body") from None
    except MultiPartException as error:
        message = error.message
        if too_many_files(message):
            message = f"images: more than {max_items} files; at most {max_items} are allowed in one request"
            raise TooLarge(message, field="images") from None
        raise MalformedRequest(f"the multipart body cannot be read: {message}", field="body") from None
    try:
        return {
            name: [part if isinstance(part, str) else await part.read() for part in form.getlist(name)] for name in form
        }
    finally:
        await form.close()


def _fields(parts: dict[str, list[str | bytes]], schema: type[BaseModel]) -> dict[str, Any]:
    """The fields of a form: lists are repeated parts, text is JSON where it parses as such."""
    fields: dict[str, Any] = {}
    for name, values in parts.items():
        decoded = [_text(value) if isinstance(value, str) else value for value in values]
        if name in _lists(schema):
            # A single text part may hold the whole JSON list.
            fields[name] = decoded[0] if len(decoded) == 1 and isinstance(decoded[0], list) else decoded
        else:
            fields[name] = decoded[-1]
    return fields


async def _whole(content: bytes | bytearray) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), CHUNK):
        yield bytes(content[start : start + CHUNK])
        await asyncio.sleep(0)
    yield b""


async def _chunks(body: Body) -> AsyncGenerator[bytes, None]:
    more = True
    while more:
        message = await body.receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft("the client left before its request was read")
        more = message.get("more_body", False)
        yield message.get("body", b"")
    yield b""


@cache
def _lists(schema: type[BaseModel]) -> frozenset[str]:
    """The fields that are lists."""
    return frozenset(name for name, info in schema.model_fields.items() if "list" in str(info.annotation))


def _text(value: str) -> Any:
    try:
        return json.loads(value) if len(value) < INLINE_BYTES else json_slices.loads(value.encode())
    except (ValueError, RecursionError):
        return value
