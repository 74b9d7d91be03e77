"""A server that answers without looking: it shows what the load generator itself can do at most.

`python -m loadtests.bench.canned PORT`
"""

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 640\r\n\r\n" + bytes(640)


class Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            head, _, body = data.partition(b"\r\n\r\n")
            at = head.find(b"Content-Length: ")
            self._missing = int(head[at + 16 :].partition(b"\r\n")[0]) - len(body) if at > 0 else 0
        else:
            self._missing -= len(data)
        if not self._missing:
            self._transport.write(ANSWER)


async def main(port: str) -> None:
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
