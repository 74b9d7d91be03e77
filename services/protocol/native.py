"""The native protocol: BentoML API methods that take JSON or multipart files and answer in readable JSON or PNG.

BentoML answers a failed parse with its own error body. So `Input.from_http_request` passes the raw request on, and
`route` parses it and turns errors into problems. The OpenAPI page and BentoML's clients still get the schemas.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any, TypeVar, get_type_hints

import bentoml
import orjson
from _bentoml_sdk.io_models import IODescriptor
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive

from services.dataplane import DataPlane
from services.errors import (
    DuetError,
    InvalidInput,
    MalformedRequest,
    TooLarge,
    Unexpected,
    UnsupportedMedia,
)
from services.protocol.answer import Answer
from services.protocol.headers import arrived, by_name, call_from_raw, call_headers, client_left, in_time
from services.protocol.problems import problem
from services.protocol.stream import Stream
from services.telemetry import metrics
from services.telemetry.call import Call

log = logging.getLogger("duet.native")

Q = TypeVar("Q", bound=BaseModel)
Handler = Callable[[DataPlane, Q, Call], Awaitable[BaseModel | Response]]


Responder = Callable[[DataPlane, Request, Receive], Awaitable[Response | Answer]]
RESPONDERS: dict[str, Responder] = {}  # by path; used by the fast lane and by BentoML's routes


class Input(IODescriptor):  # type: ignore[misc]  # BentoML is untyped
    """A request schema that leaves parsing to `route`."""

    __root_input__ = True

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Request:
        return request

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super().model_json_schema(*args, **kwargs)
        schema.pop("root_input", None)  # callers send the fields, not one object
        return schema


def route(path: str, handler: Handler[Q], answer: type[BaseModel]) -> Any:
    """Make a handler `(plane, request, call) -> answer` a BentoML API method of a class that has a `plane`.

    The handler's annotation of `request` is the request's schema, its docstring the route's description.
    """
    schema: type[Q] = get_type_hints(handler)["request"]
    RESPONDERS[path] = partial(_respond, path, schema, handler)
    spec = type(schema.__name__, (Input, schema), {"__module__": schema.__module__, "__doc__": schema.__doc__})

    async def endpoint(self: Any, request: Request, /) -> Response:
        answer = await RESPONDERS[path](self.plane, request, request.receive)
        return answer if isinstance(answer, Response) else answer.response()

    endpoint.__name__ = path.strip("/")
    endpoint.__doc__ = handler.__doc__
    return bentoml.api(endpoint, route=path, input_spec=spec, output_spec=answer)


async def _respond(
    path: str, schema: type[Q], handler: Handler[Q], plane: DataPlane, request: Request, receive: Receive
) -> Response | Answer:
    """Answer one request; `receive` is the server's, which has the state of client and body."""
    call = Call()
    try:
        headers = by_name(request.scope["headers"])
        call = call_from_raw(headers, plane.settings, plane.lag.seconds)
        call.gone = client_left(receive)
        with call.stage("parse"):
            media_type = headers.get(b"content-type", b"application/json").decode("latin-1")
            parsing = _parse(request, media_type, schema, plane.settings.request_items)
            parsed = await (parsing if arrived(receive) else in_time(parsing, call))
        answer = await handler(plane, parsed, call)
        with call.stage("encode"):
            response: Response | Answer = answer if isinstance(answer, Response) else _json(answer)
    except DuetError as error:
        metrics.REJECTIONS.labels(path, error.slug).inc()
        return problem(error)
    except ClientDisconnect:
        return problem(MalformedRequest("the client left before its request was read"))
    except Exception:
        log.exception("%s failed", path)
        metrics.REJECTIONS.labels(path, Unexpected.slug).inc()
        return problem(Unexpected())
    if isinstance(response, Stream):
        response.route = path  # it is not finished: the stream observes its own stages
    else:
        for stage, seconds in call.seconds.items():
            metrics.STAGE_SECONDS.labels(path, stage).observe(seconds)
    written = response.headers if isinstance(response, Answer) else response.raw_headers
    written.extend(call_headers(call))
    return response


def _json(answer: BaseModel) -> Answer:
    fields = answer.model_dump(by_alias=True, exclude_none=True)
    body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)  # pixels stay arrays until here
    return Answer(200, [(b"content-type", b"application/json")], body)


async def _parse(request: Request, media_type: str, schema: type[Q], max_items: int) -> Q:
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        fields = await _form(request, schema, max_items)
    elif media_type == "application/json":
        fields = _object(await request.body())
    else:
        raise UnsupportedMedia(
            f"Content-Type is {media_type[:60]!r}; send application/json or multipart/form-data",
            field="Content-Type",
        )
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # The location also has tags of a union's members, which are not fields of the request.
        name, indices = first["loc"][:1], [part for part in first["loc"][1:] if isinstance(part, int)]
        field = "".join([str(name[0])[:60], *(f"[{index}]" for index in indices)]) if name else None
        came = "" if first["type"] in ("missing", "value_error") else f"; got {_short(first['input'])}"
        where = f"{field}: " if field else ""
        raise InvalidInput(f"{where}{first['msg'].removeprefix('Value error, ')}{came}", field=field) from None


def _short(value: object) -> str:
    if isinstance(value, bytes | list | dict):  # may be as long as the body
        return {bytes: "a file", list: "a list", dict: "an object"}[type(value)]
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:  # orjson is three times as fast, but refuses NaN, which gets its own message
        try:
            fields = from_json(body)
        except ValueError as error:
            raise MalformedRequest(f"the body is not JSON: {error}", field="body") from None
    if not isinstance(fields, dict):
        raise MalformedRequest("the body is JSON, but not an object; send a JSON object", field="body")
    return fields


async def _form(request: Request, schema: type[Q], max_items: int) -> dict[str, Any]:
    """Fields of a form: files become bytes, lists are repeated parts, other text is JSON where it parses as such."""
    lists = _lists(schema)
    try:
        form = await request.form(max_files=max_items + 1, max_fields=max_items + 16)
    except ValueError:  # the charset names a codec that cannot decode text, such as charset=undefined
        raise MalformedRequest("the multipart body cannot be read in the charset that it names", field="body") from None
    except (MultiPartException, HTTPException) as error:
        message = str(getattr(error, "message", "") or getattr(error, "detail", error))
        if message.startswith("Too many files"):
            message = f"images: more than {max_items} files; at most {max_items} are allowed in one request"
            raise TooLarge(message, field="images") from None
        raise MalformedRequest(f"the multipart body cannot be read: {message}", field="body") from None
    try:
        fields: dict[str, Any] = {}
        for name in form:
            values = [part if isinstance(part, str) else await part.read() for part in form.getlist(name)]
            decoded = [_text(value) if isinstance(value, str) else value for value in values]
            if name in lists:
                # A single text part may hold the whole JSON list.
                fields[name] = decoded[0] if len(decoded) == 1 and isinstance(decoded[0], list) else decoded
            else:
                fields[name] = decoded[-1]
        return fields
    finally:
        await form.close()


@cache
def _lists(schema: type[BaseModel]) -> frozenset[str]:
    """The fields that are lists."""
    return frozenset(name for name, info in schema.model_fields.items() if "list" in str(info.annotation))


def _text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
