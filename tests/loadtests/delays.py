"""A server that draws after known delays: `python -m tests.loadtests.delays PORT LOG`.

Each request is answered after a delay of its own, which is a line of the log. So the exact percentiles of what was sent
are known, however many requests there were.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import ClassVar

STEP = (5**0.5 - 1) / 2  # multiples of the golden ratio cover [0, 1) evenly, and never the same number twice
SHARES, SECONDS = (0.0, 0.9, 0.99, 1.0), (0.08, 0.2, 0.5, 0.8)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
OVERSLEPT = 0.0005  # seconds that a sleep may take too long
MODEL = {
    "name": "known",
    "version": "1",
    "task": "generation",
    "operations": ["generate"],
    "dataset": "known",
    "manifest": {"image": {"channels": 1, "height": 8, "width": 8}, "class_names": None},
}


def delay(number: int) -> float:
    """Seconds after which a request is answered, by its number; shares and seconds are those above, lines between."""
    share = number * STEP % 1
    upper = next(index for index, end in enumerate(SHARES) if share < end)
    (left, right), (low, high) = SHARES[upper - 1 : upper + 1], SECONDS[upper - 1 : upper + 1]
    return low + (high - low) * (share - left) / (right - left)


def percentile(delays: Sequence[float], percent: float) -> float:
    """The smallest delay that so many percent do not exceed."""
    return sorted(delays)[max(0, -(-len(delays) * round(10 * percent) // 1000) - 1)]


class Handler(BaseRequestHandler):
    """A connection. Its heads are only searched for end and length: parsing would add to each delay."""

    request: socket.socket
    log: ClassVar[int]
    numbers: ClassVar[Iterator[int]] = count()

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received, begin = b"", 0.0
        while chunk := self.request.recv(65536):
            begin = begin if received else time.monotonic()
            received += chunk
            head, found, body = received.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            if found and len(body) >= (int(length[1]) if length else 0):
                received = b""
                self.request.sendall(self.answer(head, body, begin))

    def answer(self, head: bytes, body: bytes, begin: float) -> bytes:
        document: object = {"models": [MODEL | {"state": "served"}]} if b" /models " in head else MODEL
        if head.startswith(b"POST"):
            asked = json.loads(body)
            document = {"seed": asked["seed"], "images": ["drawn"] * asked["count"]}
        content = json.dumps(document).encode()
        if head.startswith(b"POST"):
            wanted = delay(next(self.numbers))
            os.write(self.log, f"{wanted}\n".encode())
            time.sleep(max(0.0, begin + wanted - time.monotonic() - OVERSLEPT))
            while time.monotonic() < begin + wanted:
                pass
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024  # connections that wait while the process is stopped


if __name__ == "__main__":
    Handler.log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
