"""Free ports of this machine."""

import contextlib
import socket


def free(count: int) -> list[int]:
    """As many different ports, held together while they are chosen."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
