"""The breaker opens at a failure, closes at a success, and says so once."""

from __future__ import annotations

import logging

import pytest

from services.caching import breaker as module
from services.caching.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from services.telemetry import metrics


@pytest.fixture
def breaker() -> Breaker:
    breaker = Breaker("tested", "it is gone ({})", "it is back")
    breaker.reset()
    return breaker


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)


def state() -> float:
    return float(metrics.REDIS_BREAKER.labels("tested")._value.get())


def test_it_opens_and_closes(breaker: Breaker) -> None:
    assert (breaker.open, state()) == (False, CLOSED)
    breaker.trip(TimeoutError())
    assert (breaker.open, state()) == (True, OPEN)
    breaker.reset()
    assert (breaker.open, state()) == (False, CLOSED)


def test_while_somebody_tries_it_is_half_open_and_lets_nobody_else_through(breaker: Breaker) -> None:
    breaker.trip(TimeoutError())
    with breaker.trying():
        assert (breaker.open, state()) == (True, HALF_OPEN)
        breaker.trip(TimeoutError())
    assert (breaker.open, state()) == (True, OPEN)
    with breaker.trying():
        breaker.reset()
    assert (breaker.open, state()) == (False, CLOSED)


def test_trying_what_is_closed_changes_nothing(breaker: Breaker) -> None:
    with breaker.trying():
        assert (breaker.open, state()) == (False, CLOSED)


def test_an_outage_is_one_line_and_its_end_another(breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        breaker.trip(ConnectionRefusedError("port 1"))
    for _ in range(100):
        breaker.reset()
    assert [record.message for record in caplog.records] == [
        "it is gone (ConnectionRefusedError: port 1)",
        "it is back",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_cause_without_words_is_named_by_its_kind(breaker: Breaker, caplog: pytest.LogCaptureFixture) -> None:
    breaker.trip(TimeoutError())
    assert [record.message for record in caplog.records] == ["it is gone (TimeoutError)"]


def test_what_comes_and_goes_writes_two_lines_a_minute(
    breaker: Breaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    for _ in range(120):  # an outage a second, for two minutes
        breaker.trip(TimeoutError())
        assert breaker.open
        breaker.reset()
        assert not breaker.open
        clock += 1.0
    assert [record.message for record in caplog.records] == ["it is gone (TimeoutError)", "it is back"] * 2
