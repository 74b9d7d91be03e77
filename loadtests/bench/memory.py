"""The memory that each limit of a service takes: bodies, parsed JSON, pixels, the cache, answers, connections.

The figures are the constants of `deploy/manifests/sizing.py`. Each kind of load has a server of its own, with the
reference models of MNIST, so that no kind finds memory that another one has left. Memory is that of all processes of
the server, every page once, as a container counts it.
"""

import asyncio
import io
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image
from rich.table import Table

from loadtests.bench import neighbours, report, server, slow_clients
from loadtests.bench.callers import Ask, Callers
from loadtests.bench.neighbours import BODY, FORM, JSON
from loadtests.bench.server import Server
from loadtests.bench.start import resident
from services.inference.bundle import load
from services.inference.registry import REFERENCE

MEBI = 2**20
SECONDS = 15.0
CALLERS = 16
PIXELS = 16_000_000  # of DUET_IMAGE_PIXELS
IDLE = 2000  # connections
SERVICES = ("classification", "generation", "anomaly", "allinone")


class Peak:
    """The most memory of a server while a block runs, in bytes."""

    def __init__(self, target: Server) -> None:
        parent = psutil.Process(target.process.pid)
        self._family = [parent, *parent.children(recursive=True)]
        self.before = self.most = resident(self._family)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, resident(self._family))

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def grown(self) -> float:
        """MiB."""
        return (self.most - self.before) / MEBI


def photograph(mode: str) -> bytes:
    """A PNG of as many pixels as a request may have; it is small, for it is of one colour."""
    side = int(PIXELS**0.5)
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def fresh(count: int) -> list[bytes]:
    """Requests for scores with heat maps, no two alike: the largest answers that the cache keeps for its items."""
    draw = np.random.default_rng(1)
    wanted = {"model": "mnist-scorer", "heatmap": True}
    return [
        json.dumps(wanted | {"images": draw.integers(0, 256, (64, 28, 28)).tolist()}).encode() for _ in range(count)
    ]


def call(*asks: Ask) -> Callable[[Server, float], None]:
    """Callers that share the questions."""

    def run(target: Server, seconds: float) -> None:
        share = max(1, CALLERS // len(asks))
        senders = [Callers(target.port, ask, seconds, share) for ask in asks]
        for sender in senders:
            sender.heard()

    return run


def upload(target: Server, seconds: float) -> None:
    neighbours.slow_uploads(target, seconds)


def connect(target: Server, seconds: float) -> None:
    async def hold() -> None:
        kind = slow_clients.Kind("idle", "", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        held = await slow_clients.open_all(target.port, kind, IDLE, seconds / 2)
        await asyncio.sleep(seconds / 2)
        for client in list(held):
            client.close()

    asyncio.run(hold())


def read_nothing(target: Server, seconds: float) -> None:
    """Clients that ask for large answers and do not read them."""
    body = json.dumps({"model": "mnist-gan", "count": 256, "seed": 1, "format": "array"}).encode()
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(64):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", target.port))
            with suppress(OSError):
                client.sendall(head % len(body) + body)
        time.sleep(seconds)


def loads(size: int) -> dict[str, Callable[[Server, float], None]]:
    worst = neighbours.worst(size)
    pictures = [
        Ask("/classify", [neighbours.form(("file", photograph(mode)), ("model", b"mnist-cnn"))], FORM)
        for mode in ("RGB", "RGBA", "I;16")
    ]
    dear = neighbours.dear()
    return {
        "64 uploads of 16 MiB": upload,
        "the worst bodies together": call(*worst.values()),
        "pictures of 16 megapixels": call(*pictures),
        "dear requests": call(*dear.values()),
        "a full cache": call(Ask("/score", fresh(400), {"Content-Type": JSON["Content-Type"]})),
        "answers that nobody reads": read_nothing,
        f"{IDLE} idle connections": connect,
        "everything together": together(worst, pictures, dear),
    }


def together(worst: dict[str, Ask], pictures: list[Ask], dear: dict[str, Ask]) -> Callable[[Server, float], None]:
    def run(target: Server, seconds: float) -> None:
        asks = [*worst.values(), *pictures, *dear.values(), Ask("/score", fresh(100), JSON)]
        uploading = threading.Thread(target=upload, args=(target, seconds))
        uploading.start()
        senders = [Callers(target.port, ask, seconds) for ask in asks]
        read_nothing(target, seconds)
        for sender in senders:
            sender.heard()
        uploading.join()

    return run


@contextmanager
def serving(service: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "training", "serve", service, "--port", "{port}"]
    with tempfile.TemporaryDirectory() as home:  # an empty store gets the reference models
        settings = {"BENTOML_HOME": home, "DUET_DRAIN_SECONDS": "0", "DUET_THREADS": "1"}
        with server.running("duet", command, **settings) as target:
            time.sleep(1)
            yield target


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each kind of load (%(default)s)")
    given = parser.parse_args()
    seconds, size = (1.0, 2**20) if given.quick else (given.seconds, BODY - 2**20)
    about = report.facts(load(REFERENCE / "mnist-cnn"))
    report.show(about)
    idle: dict[str, float] = {}
    grown: dict[str, dict[str, float]] = {}
    table = Table("load", "MiB before", "MiB more at most")

    for service in SERVICES:
        with serving(service) as target:
            idle[service] = Peak(target).before / MEBI
        table.add_row(f"{service}, idle", f"{idle[service]:.0f}", "")
    for name, run in loads(size).items():
        with serving("allinone") as target, Peak(target) as peak:
            run(target, seconds)
        grown[name] = {"before": peak.before / MEBI, "grown": peak.grown}
        table.add_row(name, f"{grown[name]['before']:.0f}", f"{peak.grown:.0f}")
    report.out.print(table)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "memory.json"
    path.write_text(json.dumps(about | {"idle_mib": idle, "loads_mib": grown}, indent=2) + "\n")
    report.out.print(f"written: {path}")


if __name__ == "__main__":
    main()
