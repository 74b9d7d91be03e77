"""What every protocol reads of a request beside its body: deadline, cache directives, whether the client is there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

from services.call import TIMEOUT, Call
from services.errors import InvalidInput
from services.settings import Settings

T = TypeVar("T")

CACHE = "Cache-Control"
PURPOSE = "X-Request-Purpose"
RAW = ((b"x-request-timeout-ms", TIMEOUT), (b"cache-control", CACHE), (b"x-request-purpose", PURPOSE))


def headers_to_dict(lines: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """ASGI's headers by name. Lines of `Cache-Control` form one list (RFC 9110, 5.3); of others the last counts."""
    headers = dict(lines)
    if len(headers) < len(lines) and b"cache-control" in headers:
        headers[b"cache-control"] = b",".join([value for name, value in lines if name == b"cache-control"])
    return headers


def call_from_headers(headers: Mapping[str, str], settings: Settings, late: float = 0.0) -> Call:
    """The call that `X-Request-Timeout-Ms`, `Cache-Control` and `X-Request-Purpose` describe.

    Args:
        headers: the request's, by name in any case.
        settings: the longest timeout.
        late: seconds that the request has probably waited already.

    Raises:
        InvalidInput: the timeout is not a positive number.
    """
    timeout_ms = float(settings.request_timeout_ms)
    if (wish := headers.get(TIMEOUT)) is not None:
        try:
            asked = float(wish)
        except ValueError:
            asked = math.nan
        if not asked > 0:
            raise InvalidInput(f"{TIMEOUT} is {wish[:40]!r}; send a number of milliseconds above 0", field=TIMEOUT)
        timeout_ms = min(timeout_ms, asked)
    deadline = time.monotonic() + timeout_ms / 1000 - late
    trial = headers.get(PURPOSE) == "trial"
    if (wishes := headers.get(CACHE)) is None:
        return Call(deadline, trial=trial)
    directives = {part.strip().lower() for part in wishes.split(",")}
    return Call(
        deadline,
        read_cache=directives.isdisjoint({"no-cache", "no-store"}),
        write_cache="no-store" not in directives,
        trial=trial,
    )


def call_from_raw(headers: Mapping[bytes, bytes], settings: Settings, late: float) -> Call:
    """`call_from_headers` for the headers of `headers_to_dict`; most requests have neither header."""
    return call_from_headers(
        {name: headers[raw].decode("latin-1") for raw, name in RAW if raw in headers}, settings, late
    )


def call_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """Headers of the answer: `X-Cache`, `Age` of a hit, `Server-Timing`."""
    headers = [(b"x-cache", call.cache_status.encode()), (b"server-timing", call.server_timing.encode())]
    if (age := call.age) is not None:
        headers.append((b"age", b"%d" % age))
    return headers
