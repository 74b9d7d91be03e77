"""Who sent the images: up to 64 clients by name, and the rest together."""

from __future__ import annotations

import numpy as np

from services.inference.drift.repeats import Repeats

NAMED = 64  # clients that have a stream of their own
REST = "*"  # the name of all others together
NAME_BYTES = 64  # of the longest name
IDLE = 360  # slices without an image, after which a client gives its place to another


class Client:
    """One stream.

    Attributes:
        name: of the client, or REST.
        sums: of the bets on its images alone, [stakes,2,E].
        repeats: its last images.
        last: number of the slice in which it last sent an image.
        strange_until: number of the slice up to which it is said to be strange.
    """

    __slots__ = ("last", "name", "repeats", "strange_until", "sums")

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.sums = np.zeros(shape)
        self.repeats = Repeats()
        self.last = self.strange_until = 0


class Clients:
    """The streams by client.

    A client gets a stream with its first image, while fewer than NAMED have one or one of them has been idle. A name
    is 1 to NAME_BYTES printable characters of ASCII other than REST; what else a header holds counts with the rest.

    Args:
        shape: of the sums of a stream.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self.rest = Client(REST, shape)
        self.named: dict[bytes, Client] = {}
        self._full = -1  # the last slice in which all places were taken

    def of(self, name: bytes | None, number: int) -> Client:
        """The stream of a client that sends an image in the slice of this number."""
        client = self.named.get(name) if name else self.rest
        if client is None:
            client = self._admit(name or b"", number)
        client.last = number
        return client

    def known(self, name: str) -> Client:
        """The stream of a name that a slice holds; the rest, if it has none here."""
        return self.named.get(name.encode(), self.rest)

    def _admit(self, name: bytes, number: int) -> Client:
        if self._full == number or len(name) > NAME_BYTES or name == REST.encode():
            return self.rest
        if not (name.isascii() and name.decode().isprintable()):
            return self.rest
        if len(self.named) == NAMED:
            idle = next((old for old, client in self.named.items() if number - client.last >= IDLE), None)
            if idle is None:
                self._full = number
                return self.rest
            del self.named[idle]
        client = self.named[name] = Client(name.decode(), self._shape)
        return client
