"""Fixtures of the tests beside this file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.scheduling.squares import Square


@pytest.fixture
def square() -> Iterator[Square]:
    square = Square()
    yield square
    square.gate.set()
