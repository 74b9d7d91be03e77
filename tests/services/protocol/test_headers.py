"""Headers of a request: its deadline and its cache wishes."""

from __future__ import annotations

import time

import pytest

from services.call import Call
from services.errors import InvalidInput
from services.protocol.headers import call_from_headers, call_headers, headers_to_dict
from services.settings import Settings

SETTINGS = Settings(request_timeout_ms=60_000)


def call(**headers: str) -> Call:
    lines = {name.replace("_", "-").lower().encode(): value.encode("latin-1") for name, value in headers.items()}
    return call_from_headers(lines, SETTINGS)


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


@pytest.mark.parametrize(
    ("lines", "read", "write"),
    [
        (["max-age=0", "no-store"], False, False),
        (["no-store", "max-age=0"], False, False),
        (["no-cache", "private"], False, True),
        (["no-cache", "private", "No-Store"], False, False),
        (["max-age=0", "private"], True, True),
        (["no-", "store"], True, True),
    ],
)
def test_cache_control_may_come_as_several_lines(lines: list[str], read: bool, write: bool) -> None:
    raw = [(b"accept", b"*/*"), *((b"cache-control", line.encode()) for line in lines), (b"host", b"x")]
    wishes = call_from_headers(headers_to_dict(raw), SETTINGS)
    assert (wishes.read_cache, wishes.write_cache) == (read, write)


def test_of_other_headers_that_come_twice_the_last_counts() -> None:
    lines = [(b"content-type", b"a"), (b"cache-control", b"no-store"), (b"content-type", b"b")]
    assert headers_to_dict(lines) == {b"content-type": b"b", b"cache-control": b"no-store"}
    assert headers_to_dict(lines[:1]) == {b"content-type": b"a"}
    assert headers_to_dict([]) == {}


@pytest.mark.parametrize("value", [b"camera-7", b"", b"\xff\xfe", b"x" * 10_240])
def test_the_header_of_the_setting_names_the_client(value: bytes) -> None:
    named = Settings(client_header="X-Client")
    headers = headers_to_dict([(b"x-client", value)])
    assert call_from_headers(headers, named).client == value
    assert call_from_headers(headers, SETTINGS).client is None
    assert call_from_headers({}, named).client is None


def test_an_answer_has_an_age_only_with_a_hit() -> None:
    call = Call(hits=1, lookups=2)
    assert dict(call_headers(call)) == {b"x-cache": b"partial; hits=1/2", b"server-timing": b""}
    call.dated(int(time.time()) - 3600)
    age = int(dict(call_headers(call))[b"age"])
    assert 3600 <= age < 3600 + 60
