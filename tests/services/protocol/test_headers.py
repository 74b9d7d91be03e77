"""Headers of a request: its deadline and its cache wishes."""

from __future__ import annotations

import time

import pytest
from starlette.datastructures import Headers

from services.errors import InvalidInput
from services.protocol.headers import call_from_headers
from services.settings import Settings
from services.telemetry.call import Call

SETTINGS = Settings(request_timeout_ms=60_000)


def call(**headers: str) -> Call:
    return call_from_headers(Headers({name.replace("_", "-"): value for name, value in headers.items()}), SETTINGS)


def milliseconds(**headers: str) -> float:
    """The timeout that these headers ask for, found from the deadline."""
    before = time.monotonic()
    deadline = call(**headers).deadline
    after = time.monotonic()
    assert deadline is not None
    assert after - before < 1
    return round(1000 * (deadline - before), -3)


def test_without_headers_the_setting_is_the_deadline_and_the_cache_is_used() -> None:
    assert milliseconds() == 60_000
    assert call().read_cache
    assert call().write_cache


@pytest.mark.parametrize(("wish", "given"), [("5000", 5000), ("5e3", 5000), (" 5000 ", 5000), ("5000.7", 5000)])
def test_a_caller_may_shorten_the_deadline(wish: str, given: int) -> None:
    assert milliseconds(x_request_timeout_ms=wish) == given


@pytest.mark.parametrize("wish", ["60001", "1e300", "inf"])
def test_a_caller_may_not_lengthen_the_deadline(wish: str) -> None:
    assert milliseconds(X_REQUEST_TIMEOUT_MS=wish) == 60_000


@pytest.mark.parametrize("wish", ["0", "-1", "-inf", "nan", "soon", "", "1s", "0x10", "\xb2", "1," * 500])
def test_another_timeout_is_refused_by_name(wish: str) -> None:
    with pytest.raises(InvalidInput, match="X-Request-Timeout-Ms") as caught:
        call(X_Request_Timeout_Ms=wish)
    assert caught.value.field == "X-Request-Timeout-Ms"
    assert len(caught.value.detail) < 120


@pytest.mark.parametrize(
    ("directives", "read", "write"),
    [
        ("no-store", False, False),
        ("no-cache", False, True),
        ("No-Cache , No-Store", False, False),
        ("max-age=0", True, True),
        ("private,no-cache", False, True),
        ("no-cached", True, True),
        ("", True, True),
    ],
)
def test_cache_control_switches_reading_and_writing(directives: str, read: bool, write: bool) -> None:
    wishes = call(Cache_Control=directives)
    assert (wishes.read_cache, wishes.write_cache) == (read, write)
