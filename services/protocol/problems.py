"""Errors as HTTP: one body for every protocol, RFC 9457 `application/problem+json`.

An extra string member `error` repeats the detail, because V2 clients and BentoML's client read that member.
"""

from __future__ import annotations

import json
import logging
import math

from services.call import log_fields
from services.errors import CallerLeft, DuetError, MethodNotAllowed, Unexpected
from services.protocol.raw_response import RawResponse
from services.telemetry import metrics
from services.telemetry.trace import Trace

log = logging.getLogger("duet.protocol")

MEDIA_TYPE = "application/problem+json"


def refusal(error: Exception, route: str, request_id: str, trace: Trace | None = None) -> DuetError:
    """The error that the caller is told, counted by route; one that is not in the catalogue is logged."""
    known = error if isinstance(error, DuetError) else Unexpected()
    if known is not error:
        log.error("%s failed (request %s)", route, request_id, exc_info=error, extra=log_fields(request_id, trace))
    if not isinstance(known, CallerLeft):
        metrics.REJECTIONS.labels(route, known.slug).inc()
    if trace is not None:
        trace.error = known.slug
    return known


def body_of(error: DuetError) -> bytes:
    body: dict[str, object] = {
        "type": f"urn:duet:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "error": error.detail,
    }
    if error.field is not None:
        body["field"] = error.field
    return json.dumps(body).encode()


def problem(error: DuetError) -> RawResponse:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))  # RFC 9110, 15.5.6: required for a 405
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    return RawResponse(error.status, headers, body_of(error))
