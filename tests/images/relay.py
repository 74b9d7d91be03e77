"""A relay before a registry that counts the bytes which clients send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK = 2**16


class Relay:
    """Connections to `address` are passed on to `target`, both `host:port`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.received = 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            answers = threading.Thread(target=self._pass, args=(server, client, False), daemon=True)
            answers.start()
            self._pass(client, server, True)
            answers.join()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                if counted:
                    with self._lock:
                        self.received += len(chunk)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def relay(target: str) -> Iterator[Relay]:
    running = Relay(target)
    try:
        yield running
    finally:
        running.close()
