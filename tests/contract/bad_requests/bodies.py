"""What every route refuses, whatever it does: bodies, media types, headers, methods and paths."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from tests.contract.bad_requests.case import BODY_BYTES, GOOD, Case, deep, form, multipart, png, raw


def everywhere(route: str) -> Iterator[Case]:
    """What every route refuses, whatever it does."""
    good = GOOD[route]
    files = [('; name=images; filename="a.png"', png())] * len(good.get("images", ()))

    def fields(name: str, status: int, field: str | None, **changes: Any) -> Case:
        return raw(name, status, field, json.dumps(good | changes))

    def headers(name: str, status: int, field: str | None, **given: str) -> Case:
        named = {key.replace("_", "-"): value for key, value in given.items()}
        return raw(name, status, field, json.dumps(good), headers={"Content-Type": "application/json"} | named)

    def typed(name: str, status: int, media_type: str, body: bytes = b"--cut--\r\n") -> Case:
        return raw(
            name, status, "Content-Type" if status == 415 else "body", body, headers={"Content-Type": media_type}
        )

    yield raw("empty body", 400, "body", b"")
    yield raw("not JSON", 400, "body", b"images=1")
    yield raw("JSON cut short", 400, "body", json.dumps(good)[:-1])
    yield raw("JSON twice", 400, "body", 2 * json.dumps(good))
    yield raw("JSON list", 400, "body", b"[]")
    yield raw("JSON text", 400, "body", b'"images"')
    yield raw("JSON number", 400, "body", b"1")
    yield raw("JSON null", 400, "body", b"null")
    yield raw("single quotes", 400, "body", b"{'images': 1}")
    yield raw("UTF-16", 400, "body", json.dumps(good).encode("utf-16"))
    yield raw("byte order mark", 400, "body", b"\xef\xbb\xbf" + json.dumps(good).encode())
    yield raw("bytes that are no UTF-8", 400, "body", b'{"model": "\xff\xfe"}')
    yield raw("NUL bytes", 400, "body", bytes(100))
    yield raw("lone surrogate", 400, "body", rb'{"model": "\ud800"}')
    yield raw("lone surrogate unescaped", 400, "body", '{"model": "\ud800"}')
    yield raw("half an escape", 400, "body", rb'{"model": "\u00')
    yield raw("100,000 levels deep", 400, "body", '{"images": [' + deep(100_000) + "]}")
    yield raw("100,000 objects deep", 400, "body", '{"a":' * 100_000)
    yield raw("a number of 5,000 digits", 400, "body", '{"seed": ' + "9" * 5000 + "}")
    yield raw("huge JSON", 413, "body", b" " * (BODY_BYTES + 1))
    yield raw("huge JSON in chunks", 413, "body", b" " * (BODY_BYTES + 1), chunked=True)
    yield raw("gzip", 400, "body", zlib.compress(json.dumps(good).encode(), wbits=31))
    yield typed("wrong media type", 415, "text/plain")
    yield typed("a form that is no multipart", 415, "application/x-www-form-urlencoded", b"count=1")
    yield typed("BentoML's pickle", 415, "application/vnd.bentoml+pickle", b"\x80\x04N.")
    yield typed("pickle in capitals", 415, "Application/VND.BentoML+Pickle; a=b", b"\x80\x04N.")
    yield typed("media type of another world", 415, "image/" + "x" * 4000)
    yield typed("media type empty", 415, "")
    yield typed("missing boundary", 400, "multipart/form-data")
    yield typed("empty boundary", 400, "multipart/form-data; boundary=")
    yield typed("another boundary", 400, "multipart/form-data; boundary=other")
    yield typed(
        "charset of no text", 400, "multipart/form-data; boundary=cut; charset=undefined", multipart(("; name=x", b"1"))
    )
    yield form("part without a name", 400, "body", ("", b"1"))
    yield form("unknown part", 422, "colour", *files, ("; name=colour", b"1"))
    yield form("model as a file", 422, "model", *files, ('; name=model; filename="m"', b"digits-vae"))
    yield fields("unknown field", 422, "nope", nope=1)
    yield fields("unknown field without a name", 422, "", **{"": 1})
    yield fields("unknown field of 10,000 letters", 422, "x" * 60, **{"x" * 10_000: 1})
    yield fields("unknown field with a NUL", 422, "\0", **{"\0": 1})
    yield fields("unknown model", 404, "model", model="nobody")
    yield fields("unknown version", 404, "model", model="digits-vae:0")
    yield fields("model with a NUL", 404, "model", model="\0")
    yield fields("model with a path", 404, "model", model="../../etc/passwd")
    yield fields("model as a number", 422, "model", model=1)
    yield fields("model as a list", 422, "model", model=[])
    for wish in ("0", "-1", "nan", "soon", "", "1s", "9" * 400 + "x"):
        yield headers(f"timeout {wish[:5]!r}", 422, "X-Request-Timeout-Ms", X_Request_Timeout_Ms=wish)
    yield headers("no time at all", 504, "X-Request-Timeout-Ms", X_Request_Timeout_Ms="1e-9", Cache_Control="no-store")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield Case(f"method {method}", 405, None, method=method, allow="POST")
    yield Case("trailing slash", 404, None, b"{}", path=f"{route}/")
    yield Case("double slash", 404, None, b"{}", path=f"/{route}")
    yield Case("in capitals", 404, None, b"{}", path=route.upper())
    yield Case("below the route", 404, None, b"{}", path=f"{route}/x")
    yield Case("percent-encoded slash", 404, None, b"{}", path=f"{route}%2F")
    yield Case("NUL in the path", 404, None, b"{}", path=f"{route}%00")
    yield Case("bytes that are no UTF-8 in the path", 404, None, b"{}", path=f"{route}%FF%FE")
