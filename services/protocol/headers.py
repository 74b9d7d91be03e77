"""What every protocol reads of a request beside its body: deadline, cache directives, whether the client is there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from services.call import TIMEOUT, Call
from services.errors import InvalidInput
from services.settings import Settings

WISH_BYTES = 64  # of a header whose meaning is kept
LISTS = {b"cache-control", b"tracestate"}  # headers whose lines form one list
KNOWN = 256  # combinations of headers whose meaning is kept
_known: dict[tuple[bytes | None, ...], tuple[float, bool, bool, bool]] = {}


def headers_to_dict(lines: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """ASGI's headers by name. Lines of some headers form one list (RFC 9110, 5.3); of others the last counts."""
    headers = dict(lines)
    if len(headers) < len(lines):
        for listed in LISTS & headers.keys():
            headers[listed] = b",".join([value for name, value in lines if name == listed])
    return headers


def _wishes(timeout: bytes | None, cache: bytes | None, purpose: bytes | None) -> tuple[float, bool, bool, bool]:
    """Milliseconds, whether the cache may be read, whether it may be written, and whether the request is a trial."""
    asked = math.inf
    if timeout is not None:
        text = timeout.decode("latin-1")
        try:
            asked = float(text)
        except ValueError:
            asked = math.nan
        if not asked > 0:
            raise InvalidInput(f"{TIMEOUT} is {text[:40]!r}; send a number of milliseconds above 0", field=TIMEOUT)
    directives = {part.strip().lower() for part in (cache or b"").split(b",")}
    read = directives.isdisjoint({b"no-cache", b"no-store"})
    return asked, read, b"no-store" not in directives, purpose == b"trial"


def call_from_headers(headers: Mapping[bytes, bytes], settings: Settings, late: float = 0.0) -> Call:
    """The call that `X-Request-Timeout-Ms`, `Cache-Control`, `X-Request-Purpose` and the client's header describe.

    Args:
        headers: the request's, as `headers_to_dict` returns them.
        settings: the longest timeout, and the header that names the client.
        late: seconds that the request has probably waited already.

    Raises:
        InvalidInput: the timeout is not a positive number.
    """
    wishes = headers.get(b"x-request-timeout-ms"), headers.get(b"cache-control"), headers.get(b"x-request-purpose")
    known = _known.get(wishes)
    if known is None:
        known = _wishes(*wishes)
        if len(_known) < KNOWN and all(wish is None or len(wish) <= WISH_BYTES for wish in wishes):
            _known[wishes] = known
    asked, read, write, trial = known
    seconds = min(settings.request_timeout_ms, asked) / 1000
    client = headers.get(settings.client_header.encode()) if settings.client_header else None
    return Call(time.monotonic() + seconds - late, read, write, None, trial, client)


def call_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """Headers of the answer: `X-Cache`, `Age` of a hit, `Server-Timing`."""
    headers = [(b"x-cache", call.cache_status.encode()), (b"server-timing", call.server_timing.encode())]
    if (age := call.age) is not None:
        headers.append((b"age", b"%d" % age))
    return headers
