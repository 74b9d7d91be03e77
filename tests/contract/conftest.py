"""The server under test, and the question whether it still answers right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest


@dataclass
class Server:
    """A client of the server that remembers first answers."""

    client: httpx.Client
    first: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def answers(self, route: str, body: dict[str, Any]) -> Any:
        """The answer to a good request, which is the same each time."""
        # Computed anew: an answer from the cache would not show that the model still works.
        response = self.client.post(route, json=body, headers={"Cache-Control": "no-store"})
        assert response.status_code == 200, response.text
        assert response.json() == self.first.setdefault(route, response.json())
        return response.json()

    def surprises(self) -> float:
        """Requests so far that met an error which nobody foresaw."""
        internal = re.compile(r'duet_rejections_total\{.*reason="internal"')
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if internal.match(line))


@pytest.fixture(scope="module")
def server(allinone_url: str) -> Iterator[Server]:
    with httpx.Client(base_url=allinone_url, timeout=30) as client:
        yield Server(client)


@pytest.fixture(scope="module")
def client(allinone_url: str) -> Iterator[httpx.Client]:
    """Asks the same server, and remembers nothing."""
    with httpx.Client(base_url=allinone_url, timeout=60) as client:
        yield client
