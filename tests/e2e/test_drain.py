"""A replica that is told to stop under load answers everything that it accepted."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

CONNECTIONS = 16
PATIENCE = 30
BODY = json.dumps({"parameters": {"seed": 7, "count": 4}}).encode()
REQUEST = b"POST /v2/models/digits-vae/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PROBE = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass
class Load:
    """Callers behind a load balancer that looks at /readyz: when it falls, no connection is opened any more."""

    host: str
    port: int
    ready: bool = True
    answered: int = 0
    told_to_close: int = 0
    failures: list[str] = field(default_factory=list)
    warm: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        callers = [self._call(keep=bool(i % 2)) for i in range(CONNECTIONS)]
        await asyncio.gather(self._watch(), *callers)

    async def _watch(self) -> None:
        while self.ready:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(PROBE)
            self.ready = (await _answer(reader))[0] == 200
            writer.close()
            await asyncio.sleep(0.5)  # a probe comes now and then

    async def _call(self, *, keep: bool) -> None:
        """Ask again and again, on one connection or on a new one each time."""
        while self.ready:
            try:
                reader, writer = await asyncio.open_connection(self.host, self.port)
                closing = False
                while not closing:
                    writer.write(REQUEST)
                    status, head = await _answer(reader)
                    closing = not keep or b"connection: close" in head.lower()
                    self.answered += 1
                    self.told_to_close += keep and closing
                    if self.answered == 50 * CONNECTIONS:
                        self.warm.set()
                    if status != 200:
                        self.failures.append(head.decode())
                writer.close()
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the head of a whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = re.findall(rb"content-length: (\d+)", head.lower())
    await reader.readexactly(int(length))
    return int(head.split()[1]), head


async def test_no_accepted_request_fails_when_a_replica_stops_under_load(serve: Any) -> None:
    with serve("generation", DUET_DRAIN_SECONDS="2") as server:
        address = urlsplit(server.url)
        load = Load(str(address.hostname), int(address.port or 0))
        running = asyncio.create_task(load.run())
        await load.warm.wait()
        server.process.send_signal(signal.SIGTERM)
        await running
        assert load.failures == []
        # Connections that stay open are told to close, by an answer.
        assert load.told_to_close >= CONNECTIONS // 2
        assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


def test_what_is_being_computed_when_the_grace_ends_is_answered(serve: Any) -> None:
    with serve("generation", DUET_DRAIN_SECONDS="0") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        address = urlsplit(server.url)
        body = json.dumps({"parameters": {"count": 256}}).encode()

        async def ask() -> int:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(REQUEST.replace(str(len(BODY)).encode(), str(len(body)).encode()).replace(BODY, body))
            await writer.drain()
            await asyncio.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            status, _ = await _answer(reader)
            writer.close()
            return status

        assert client.get("/readyz").status_code == 200
        assert asyncio.run(ask()) == 200
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)])
def test_a_second_sigterm_and_ctrl_c_end_the_grace_at_once(serve: Any, signals: tuple[int, ...]) -> None:
    with serve("generation", DUET_DRAIN_SECONDS="3600") as server:
        server.process.send_signal(signals[0])
        if len(signals) > 1:
            end = time.monotonic() + PATIENCE
            while httpx.get(f"{server.url}/readyz").status_code == 200 and time.monotonic() < end:
                time.sleep(0.02)
            assert httpx.post(f"{server.url}/generate", json={"count": 1}).status_code == 200
            server.process.send_signal(signals[1])
        assert server.process.wait(PATIENCE) == 0
