"""What is logged, and what is not."""

from __future__ import annotations

import logging

import pytest

from services.telemetry import logs


def test_uvicorn_does_not_put_a_line_together_for_every_request() -> None:
    logs.configure()
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_configuring_twice_does_not_say_everything_twice() -> None:
    logs.configure()
    logs.configure()
    assert len(logging.getLogger("duet").handlers) == 1


def test_a_line_says_when_how_bad_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("duet").handlers.clear()  # the handler holds the stream of the test before
    logs.configure()
    logging.getLogger("duet.cache").warning("Redis does not answer")
    line = capsys.readouterr().err
    assert "[WARNING] [duet.cache] Redis does not answer" in line
