"""Forms (multipart/form-data, RFC 7578): one file part an image, one text part a field."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from functools import cache, partial
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from services.call import Call
from services.dataplane import DataPlane
from services.errors import CallerLeft, MalformedRequest, TooLarge
from services.protocol import json_slices
from services.protocol.body import Body
from services.scheduling.offload import INLINE_BYTES
from services.shims import too_many_files

CHUNK = 2**16  # bytes of a form that are parsed at once
BOUNDARY = re.compile(r"multipart/form-data; ?boundary=([A-Za-z0-9'+_./=-]{1,70})", re.IGNORECASE)
DISPOSITION = re.compile(rb'form-data; name="([\w.-]{1,60})"(?:; filename="[^"\\\r\n]*")?', re.IGNORECASE)
FORM_BYTES = 2**17  # of a form that `plain_form` reads

Parts = dict[str, list[str | bytes]]


async def read_form(
    content_type: str, body: Body, schema: type[BaseModel], plane: DataPlane, call: Call
) -> dict[str, Any]:
    """The fields of a request in a form.

    Raises:
        MalformedRequest, TooLarge, CallerLeft.
    """
    parts, most = None, plane.settings.request_items
    if body.arrived or body.compressed:
        content = await body.read(call)
        if len(content) <= FORM_BYTES:
            parts = plain_form(content_type, bytes(content), most)
        parts = parts or await _form(content_type, _whole(content), most)
    else:
        parts = await call.within(_form(content_type, _chunks(body), most), "the body did not arrive")
    return await plane.offload.run_if_large(partial(_fields, parts, schema), call, body.size, INLINE_BYTES)


def plain_form(content_type: str, content: bytes, most: int) -> Parts | None:
    """The parts of a form as clients send them: names and files without escapes, text in UTF-8.

    None for any other form, also for a wrong one, which `_form` reads or refuses. It takes a twentieth of the time.
    """
    boundary = BOUNDARY.fullmatch(content_type)
    if boundary is None:
        return None
    first, *sections = (b"\r\n" + content).split(b"\r\n--" + boundary[1].encode())
    if first or not 1 < len(sections) <= most or sections.pop() not in (b"--", b"--\r\n"):
        return None
    parts: Parts = {}
    for section in sections:
        head, empty, value = section.partition(b"\r\n\r\n")
        described = None
        for line in head.removeprefix(b"\r\n").split(b"\r\n"):
            name, _, about = line.partition(b": ")
            if name.lower() == b"content-disposition":
                described = DISPOSITION.fullmatch(about)
            elif name.lower() != b"content-type" or b"charset" in about:
                return None
        if described is None or not empty or not head.startswith(b"\r\n"):
            return None
        try:
            held: str | bytes = value if b"; filename=" in described[0] else value.decode()
        except UnicodeDecodeError:
            return None
        parts.setdefault(described[1].decode(), []).append(held)
    return parts


class InMemory(MultiPartParser):
    """Keeps files in memory, where the budget of all bodies bounds them; Starlette moves large ones to the disk."""

    spool_max_size = 2**62


async def _form(content_type: str, chunks: AsyncGenerator[bytes, None], max_items: int) -> Parts:
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


def _fields(parts: Parts, schema: type[BaseModel]) -> dict[str, Any]:
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
        if start:
            await asyncio.sleep(0)
        yield bytes(content[start : start + CHUNK])
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
