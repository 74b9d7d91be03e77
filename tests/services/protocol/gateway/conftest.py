"""A data plane with the native routes left to the app (no fast lane), and a client of the guard before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.dataplane import DataPlane
from services.settings import Settings
from tests.services.protocol.gateway.asgi import LIMIT, Client, echo


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> DataPlane:
    """One that serves nothing, and is ready."""
    monkeypatch.setenv("DUET_BODY_BYTES", str(LIMIT))
    monkeypatch.setenv("DUET_FAST_LANE", "false")
    plane = DataPlane([])
    plane.problems = []
    plane.starting = False
    assert plane.settings == Settings()
    return plane


@pytest.fixture
def client(plane: DataPlane) -> Client:
    return Client(plane, echo)
