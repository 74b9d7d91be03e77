"""What is logged, and what is not."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from services.telemetry import logs


def test_uvicorn_does_not_put_a_line_together_for_every_request() -> None:
    logs.configure()
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    logger = logging.getLogger("duet")
    before = list(logger.handlers), logger.propagate, logger.level
    warnings, hook = logging.getLogger("py.warnings"), sys.excepthook
    logger.handlers.clear()
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])
    warnings.handlers.clear()
    logging.captureWarnings(False)
    sys.excepthook = hook


def test_configuring_twice_does_not_say_everything_twice() -> None:
    logs.configure()
    logs.configure()
    streams = [handler for handler in logging.getLogger("duet").handlers if type(handler) is logging.StreamHandler]
    assert len(streams) == 1


def test_a_line_says_when_how_bad_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("duet.cache").warning("Redis does not answer")
    line = capsys.readouterr().err
    assert "[WARNING] [duet.cache] Redis does not answer" in line


def test_json_has_the_request_and_the_exception_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("duet.protocol").exception("%s failed", "/classify", extra={"request_id": "r1"})
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("ERROR", "duet.protocol", "/classify failed")
    assert found["request_id"] == "r1"
    assert found["exception"].endswith("ValueError: two\nlines")
    assert datetime.fromisoformat(found["time"]).tzinfo is not None


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_are_bounded_and_the_next_one_says_how_many_are_missing(
    form: logs.Form, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock)
    logs.configure(form, rate=2)
    log = logging.getLogger("duet.cache")
    for number in range(50):
        log.warning("line %d", number)
    assert len(capsys.readouterr().err.splitlines()) == 2 * logs.BURST_SECONDS
    clock = 0.5  # a line is free again
    log.warning("later")
    log.warning("too soon")
    (line,) = capsys.readouterr().err.splitlines()
    assert "40" in line
    if form == "json":
        assert json.loads(line)["left_out"] == 40


def test_no_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(rate=0)
    for _ in range(500):
        logging.getLogger("duet").info("line")
    assert len(capsys.readouterr().err.splitlines()) == 500
