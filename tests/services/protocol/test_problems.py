"""Every error of the catalogue as an HTTP answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import Response

from services.errors import DuetError, MethodNotAllowed, QueueFull, Unexpected
from services.protocol.problems import MEDIA_TYPE, refusal
from services.protocol.problems import problem as raw_problem
from services.telemetry.logs import JsonLines
from services.telemetry.trace import Trace

DOCUMENTED = {
    "internal": 500,
    "malformed-request": 400,
    "unknown-route": 404,
    "unknown-model": 404,
    "method-not-allowed": 405,
    "head-timeout": 408,
    "too-large": 413,
    "head-too-large": 431,
    "not-implemented": 501,
    "too-many-connections": 503,
    "unsupported-media-type": 415,
    "invalid-input": 422,
    "queue-full": 429,
    "bodies-full": 429,
    "caller-left": 499,
    "not-ready": 503,
    "deadline-exceeded": 504,
    "inference-failed": 500,
}


def subclasses(kind: type[DuetError]) -> Iterator[type[DuetError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def make(kind: type[DuetError]) -> DuetError:
    if issubclass(kind, Unexpected):
        return kind()
    if issubclass(kind, MethodNotAllowed):
        return kind("no", allowed="POST")
    return kind("no", field="images[3]", retry_after=1.2)


def problem(error: DuetError) -> Response:
    return raw_problem(error).response()


def body(response: Response) -> dict[str, Any]:
    return dict(json.loads(bytes(response.body)))


def test_every_problem_type_is_documented_once() -> None:
    assert {kind.slug: kind.status for kind in subclasses(DuetError)} == DOCUMENTED
    with_own_slug = [kind for kind in subclasses(DuetError) if "slug" in vars(kind)]
    assert len(with_own_slug) == len(DOCUMENTED), "two classes share a slug"


@pytest.mark.parametrize("kind", list(subclasses(DuetError)), ids=lambda kind: kind.__name__)
def test_an_error_becomes_a_problem(kind: type[DuetError]) -> None:
    error = make(kind)
    response = problem(error)
    members = body(response)
    assert response.status_code == members["status"] == DOCUMENTED[kind.slug]
    assert response.headers["content-type"] == MEDIA_TYPE == "application/problem+json"
    assert members["type"] == f"urn:duet:problem:{kind.slug}"
    assert members["title"] == kind.title
    assert members["detail"] == members["error"] == error.detail == str(error)
    assert members.get("field") == error.field
    assert response.headers.get("retry-after") == (None if error.retry_after is None else "2")
    assert response.headers.get("allow") == ("POST" if kind is MethodNotAllowed else None)


def test_a_problem_without_field_and_retry_has_no_such_members() -> None:
    response = problem(QueueFull("full"))
    assert set(body(response)) == {"type", "title", "status", "detail", "error"}
    assert "retry-after" not in response.headers


def test_retry_after_is_whole_seconds_never_too_early() -> None:
    assert problem(QueueFull("full", retry_after=1.0)).headers["retry-after"] == "1"
    assert problem(QueueFull("full", retry_after=0.01)).headers["retry-after"] == "1"
    assert problem(QueueFull("full", retry_after=7.3)).headers["retry-after"] == "8"


def test_text_that_utf8_cannot_carry_is_escaped() -> None:
    response = problem(DuetError("a lone \ud800 and \x00 and ü", field="\udfff"))
    assert bytes(response.body).isascii()
    assert body(response)["detail"] == "a lone \ud800 and \x00 and ü"


def test_a_trace_and_the_log_know_each_other(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    trace = Trace(0x4BF92F3577B34DA6A3CE929D0E0E4736, None, b"", 0.0)
    refusal(ValueError("a defect"), "/classify", "r1", trace)
    assert trace.error == "internal"
    [record] = caplog.records
    line = json.loads(JsonLines().format(record))
    assert (line["request_id"], line["trace_id"]) == ("r1", "4bf92f3577b34da6a3ce929d0e0e4736")
    refusal(QueueFull("full"), "/classify", "r2", trace)
    assert trace.error == "queue-full"
    assert len(caplog.records) == 1


def test_a_request_that_is_not_traced_has_no_id_of_a_trace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    refusal(ValueError("a defect"), "/classify", "r1")
    assert "trace_id" not in json.loads(JsonLines().format(caplog.records[0]))
