"""Admission is by operation, and the same for both protocols."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from services.protocol.native.requests import FOUR
from tests.conftest import PATIENCE, Serve

pytestmark = [pytest.mark.server, pytest.mark.slow]

NO_STORE = {"Cache-Control": "no-store"}
QUEUE_ITEMS = 320
REQUEST_ITEMS = 16
MANY = 250  # items of a request that does not fit the queue any more


def native(count: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/classify", {"images": [FOUR] * count, **fields}


def v2(count: int, *outputs: str) -> tuple[str, dict[str, Any]]:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [count], "data": [FOUR] * count}
    return "/v2/models/digits-cnn/infer", {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}


async def waiting(client: httpx.AsyncClient, operation: str) -> float:
    text = (await client.get("/metrics")).text
    found = re.search(rf'duet_queue_items\{{.*operation="{operation}".*\}} ([\d.]+)', text)
    return float(found[1]) if found else 0.0


async def test_a_queue_of_one_operation_refuses_no_other(serve: Serve) -> None:
    async def ask(route: str, body: dict[str, Any]) -> httpx.Response:
        return await client.post(route, json=body, headers=NO_STORE)

    with serve("classification", DUET_QUEUE_ITEMS=str(QUEUE_ITEMS), DUET_THREADS="1") as server:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as client:
            dear = native(REQUEST_ITEMS, explanation="rise")
            maps = [asyncio.create_task(ask(*dear)) for _ in range(QUEUE_ITEMS // REQUEST_ITEMS)]
            end = time.monotonic() + PATIENCE
            while await waiting(client, "rise") < QUEUE_ITEMS / 2:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
            refused = await asyncio.gather(ask(*native(MANY, explanation="rise")), ask(*v2(MANY, "rise")))
            cheap = await asyncio.gather(ask(*native(1)), ask(*v2(1, "probabilities")))
            assert await waiting(client, "rise") > 0  # they were asked while the queue was long
            assert {answer.status_code for answer in await asyncio.gather(*maps)} == {200}
    assert [answer.status_code for answer in refused] == [429, 429], refused[1].text
    assert {answer.json()["type"] for answer in refused} == {"urn:duet:problem:queue-full"}
    assert [answer.status_code for answer in cheap] == [200, 200], cheap[1].text
