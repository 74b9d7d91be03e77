"""The catalogue of errors that a request can cause.

Transport-free: a `DuetError` names the problem, `services.protocol.problems` turns it into an HTTP answer.
One class for each problem type, so that the status, the title and the documentation stand in one place.
"""

from __future__ import annotations

from typing import ClassVar


class DuetError(Exception):
    """A request cannot be answered; the caller gets the message, never a stack trace.

    Args:
        detail: one sentence: the value in the request, and what is allowed.
        field: the request field (dotted path) that caused the error, if there is one.
        retry_after: seconds after which a retry can succeed, if that is known.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


class Unexpected(DuetError):
    """An error that is not in this catalogue: the log has it, and the caller gets no details."""

    def __init__(self) -> None:
        super().__init__("an unexpected error occurred; see the server's log")


class MalformedRequest(DuetError):
    status, slug, title = 400, "malformed-request", "The request cannot be parsed"


class UnknownRoute(DuetError):
    status, slug, title = 404, "unknown-route", "No such route"


class UnknownModel(DuetError):
    status, slug, title = 404, "unknown-model", "No such model"


class MethodNotAllowed(DuetError):
    status, slug, title = 405, "method-not-allowed", "Method not allowed on this route"

    def __init__(self, detail: str, *, allowed: str) -> None:
        super().__init__(detail)
        self.allowed = allowed


class HeadTimeout(DuetError):
    status, slug, title = 408, "head-timeout", "The headers did not arrive in time"


class HeadTooLarge(DuetError):
    status, slug, title = 431, "head-too-large", "The headers are too large"


class NotImplementedHTTP(DuetError):
    status, slug, title = 501, "not-implemented", "This part of HTTP is not implemented"


class TooManyConnections(DuetError):
    status, slug, title = 503, "too-many-connections", "Too many connections are open"


class TooLarge(DuetError):
    status, slug, title = 413, "too-large", "The request is too large"


class UnsupportedMedia(DuetError):
    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidInput(DuetError):
    status, slug, title = 422, "invalid-input", "The input is not valid"


class QueueFull(DuetError):
    status, slug, title = 429, "queue-full", "Too many requests are waiting"


class NotReady(DuetError):
    status, slug, title = 503, "not-ready", "The service is not ready"


class DeadlineExceeded(DuetError):
    status, slug, title = 504, "deadline-exceeded", "The deadline passed before an answer was ready"


class BodiesFull(DuetError):
    status, slug, title = 429, "bodies-full", "Request bodies take too much memory"


class CallerLeft(DuetError):
    """The client has disconnected, so nobody reads the answer, and it counts as no rejection."""

    status, slug, title = 499, "caller-left", "The client left"


class InferenceFailed(DuetError):
    status, slug, title = 500, "inference-failed", "The model failed on this input"
