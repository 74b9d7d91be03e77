"""The native protocol: routes that take JSON or multipart files and answer in readable JSON or PNG."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar, get_type_hints

import bentoml
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from services.call import Call
from services.dataplane import DataPlane
from services.errors import InvalidInput, MalformedRequest, UnsupportedMedia
from services.protocol import json_slices
from services.protocol.body import Body
from services.protocol.exchange import Answer, complete
from services.protocol.native.forms import read_form
from services.protocol.problems import problem, refusal
from services.protocol.raw_response import RawResponse
from services.scheduling.offload import INLINE_BYTES
from services.settings import Settings
from services.shims import request_schema
from services.tasks.limits import check_count

Q = TypeVar("Q", bound=BaseModel)
Fields = dict[str, Any]  # of the schema of an answer, without those that are None; a fifth of the cost of its objects
Handler = Callable[[DataPlane, Q, Call], Awaitable[BaseModel | Fields | Answer]]
RawHeaders = Mapping[bytes, bytes]


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

    @property
    def streams(self) -> bool:
        """Whether a request can ask for an answer in parts."""
        return "stream" in self.schema.model_fields

    async def respond(self, plane: DataPlane, headers: RawHeaders, body: Body, call: Call) -> Answer:
        """Answer one request.

        Raises:
            DuetError: the request is refused.
        """
        with call.stage("parse"):
            parsed = await _parse(headers, body, self.schema, plane, call)
        answer = await self.handler(plane, parsed, call)
        with call.stage("encode"):
            return _json(answer) if isinstance(answer, BaseModel | dict) else answer

    def api(self) -> Any:
        """The route as a BentoML API method of a class that has a `plane`, for requests that pass BentoML's layers."""
        schema = self.schema
        spec = type(schema.__name__, (Input, schema), {"__module__": schema.__module__, "__doc__": schema.__doc__})

        async def endpoint(service: Any, request: Request, /) -> Response:
            headers, body, call = request.scope["duet"]  # from the gateway
            try:
                answer = await self.respond(service.plane, headers, body, call)
                complete(answer, self.path, call)
            except Exception as error:  # BentoML would answer with a body of its own
                answer = problem(refusal(error, self.path, call.id))
            return answer.response() if isinstance(answer, RawResponse) else answer

        endpoint.__name__ = self.path.strip("/")
        endpoint.__doc__ = self.handler.__doc__
        return bentoml.api(endpoint, route=self.path, input_spec=spec, output_spec=self.answer)


def _json(answer: BaseModel | Fields) -> RawResponse:
    fields = answer if isinstance(answer, dict) else answer.model_dump(by_alias=True, exclude_none=True)
    body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)  # pixels stay arrays until here
    return RawResponse(200, [(b"content-type", b"application/json")], body)


async def _parse(headers: RawHeaders, body: Body, schema: type[Q], plane: DataPlane, call: Call) -> Q:
    content_type = headers.get(b"content-type", b"application/json").decode("latin-1")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        fields = await read_form(content_type, body, schema, plane, call)
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
            if not json_slices.is_short(text):
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
