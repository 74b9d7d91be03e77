"""What is logged, and what is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from services.telemetry import logs


def test_uvicorn_does_not_put_a_line_together_for_every_request() -> None:
    logs.configure()
    assert not logging.getLogger("uvicorn.access").hasHandlers()


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    logger = logging.getLogger("duet")
    before = list(logger.handlers), logger.propagate, logger.level
    logger.handlers.clear()
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


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
