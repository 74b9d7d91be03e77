"""What one request does to others: dear requests beside cheap ones, the worst bodies, slow uploads.

Everything of the server runs on one core, the callers on another. The models are the reference models of MNIST.
"""

import base64
import gzip
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import islice

import numpy as np
from PIL import Image
from rich.table import Table

from loadtests.bench import cores, report, server
from loadtests.bench.callers import Ask, Callers
from loadtests.bench.server import Server
from services.inference.bundle import load
from services.inference.registry import REFERENCE

SECONDS, WORST_SECONDS = 5.0, 60.0
CHEAP_CALLERS, DEAR_CALLERS, UPLOADS = 2, 4, 64
BODY = 16 * 2**20  # bytes, the default limit
JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}
FORM = {"Content-Type": "multipart/form-data; boundary=cut", "Cache-Control": "no-store"}
LIVEZ = Ask("/livez", (), {})

IMAGES = np.random.default_rng(0).integers(0, 256, (256, 28, 28), dtype=np.uint8).tolist()
INFER = "/v2/models/mnist-cnn/infer"


def bodies(*documents: dict[str, object]) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


CHEAP = Ask("/classify", bodies(*({"model": "mnist-cnn", "images": [image]} for image in IMAGES[:50])), JSON)


def dear() -> dict[str, Ask]:
    """Requests that take tens or hundreds of milliseconds each."""
    seeds = range(20)
    drawn = {"model": "mnist-gan"}
    maps = {"model": "mnist-scorer", "heatmap": True, "regions": True}
    explained = {"model": "mnist-cnn", "explanation": "rise"}
    rise = bodies(*(explained | {"images": [image]} for image in IMAGES[:20]))
    samples = bodies(*(drawn | {"count": 256, "seed": seed} for seed in seeds))
    chains = bodies(*(drawn | {"count": 16, "seed": seed, "sampler": "metropolis-hastings"} for seed in seeds))
    return {
        "RISE maps": Ask("/classify", rise, JSON),
        "256 GAN samples": Ask("/generate", samples, JSON),
        "Metropolis-Hastings, 16 samples": Ask("/generate", chains, JSON),
        "32 scores with heat maps": Ask("/score", bodies(maps | {"images": IMAGES[:32]}), JSON),
        "a JPEG of 12 megapixels": Ask("/classify", [form(("file", jpeg()), ("model", b"mnist-cnn"))], FORM),
    }


def jpeg() -> bytes:
    rows, columns = np.mgrid[:3000, :4000]
    pixels = np.stack([columns // 16 % 256, rows // 12 % 256, (rows + columns) // 20 % 256], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def form(*parts: tuple[str, bytes]) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = b"".join(head % (name.encode(), value) for name, value in parts) + b"--cut--\r\n"
    return body.replace(b'name="file"', b'name="images"; filename="f"')


def repeated(before: bytes, member: bytes, after: bytes, size: int) -> bytes:
    """JSON of about `size` bytes with one member again and again."""
    return before + b",".join([member] * (size // (len(member) + 1))) + after


def worst(size: int) -> dict[str, Ask]:
    """The bodies found so far that hold up the event loop for longest, of about `size` bytes each."""
    v2 = b'{"inputs":[{"name":"images","datatype":"%b","shape":[%b],"data":['
    spec = {"name": "images", "datatype": "BYTES", "shape": [size // 4], "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [spec]}).encode()
    packed = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": str(len(head))}
    floats = repeated(v2 % (b"FP32", b"256,1,28,28"), b"0.125", b"]}]}", size)
    integers = repeated(v2 % (b"UINT8", b"10030,1,28,28"), b"1", b"]}]}", size)
    latents = repeated(
        b'{"model":"mnist-gan","stream":true,"latents":[', repeated(b"[", b"0.5", b"]", 256), b"]}", size
    )
    texts = [("images", repeated(b"[", b"1", b"]", 2**20 - 100))] * max(1, size // 2**20 - 1)
    picture = base64.b64encode(bytes(3 * size // 4))
    found = {
        "BYTES in gzip": (INFER, gzip.compress(head + bytes(size)), packed),
        "floats in V2": (INFER, floats, JSON),
        "integers in V2": (INFER, integers, JSON),
        "empty lists in V2": (INFER, repeated(v2 % (b"UINT8", b"5000000"), b"[]", b"]}]}", size), JSON),
        "outputs in V2": (INFER, repeated(b'{"inputs":[],"outputs":[', b'{"name":"label"}', b"]}", size), JSON),
        "integers": ("/classify", repeated(b'{"model":"mnist-cnn","images":[', b"1", b"]}", size), JSON),
        "one long image": ("/classify", repeated(b'{"model":"mnist-cnn","images":[[', b"1", b"]]}", size), JSON),
        "small images": ("/classify", repeated(b'{"model":"mnist-cnn","images":[', b"[[1]]", b"]}", size), JSON),
        "latents": ("/generate", latents, JSON),
        "members": ("/classify", b"{" + b",".join(b'"k%d":0' % i for i in range(size // 13)) + b"}", JSON),
        "one long text": ("/classify", b'{"model":"mnist-cnn","images":["' + picture + b'"]}', JSON),
        "texts of a form": ("/classify", form(*texts), FORM),
    }
    return {name: Ask(path, [body], headers) for name, (path, body, headers) in found.items()}


def beside(target: Server, seconds: float, asks: dict[str, Ask]) -> dict[str, object]:
    """Cheap requests alone and beside dear ones."""
    alone = Callers(target.port, CHEAP, seconds, CHEAP_CALLERS).heard()
    table = Table("beside", "cheap a second", "p50 ms", "p99 ms", "dear a second, alone", "beside cheap ones")
    table.add_row("nothing", f"{alone.rate:.0f}", f"{alone.at(50):.2f}", f"{alone.at(99):.1f}", "", "")
    rows: dict[str, object] = {"nothing": {"cheap": alone.rate, "p50_ms": alone.at(50), "p99_ms": alone.at(99)}}
    for name, ask in asks.items():
        by_itself = Callers(target.port, ask, seconds, DEAR_CALLERS).heard()
        together = Callers(target.port, ask, seconds, DEAR_CALLERS)
        cheap, loaded = Callers(target.port, CHEAP, seconds, CHEAP_CALLERS).heard(), together.heard()
        figures = {"cheap": cheap.rate, "p50_ms": cheap.at(50), "p99_ms": cheap.at(99)}
        rows[name] = figures | {"dear_alone": by_itself.rate, "dear_beside": loaded.rate}
        cells = (f"{cheap.rate:.0f}", f"{cheap.at(50):.2f}", f"{cheap.at(99):.1f}")
        table.add_row(name, *cells, f"{by_itself.rate:.1f}", f"{loaded.rate:.1f}")
    report.out.print(table)
    return rows


def stalls(target: Server, seconds: float, together: float, asks: dict[str, Ask]) -> dict[str, object]:
    """The longest answer of /livez while each of the worst bodies is sent, and while 16 callers send all of them."""
    table = Table("body", "longest /livez ms", "answers")
    rows: dict[str, object] = {}
    for name, some, length in [*((name, [ask], seconds) for name, ask in asks.items()), ("all, 16", None, together)]:
        sent = some or [list(asks.values())[turn % len(asks)] for turn in range(16)]
        # Processes that start take the core of the callers, so the probe begins after them.
        senders = [Callers(target.port, ask, length + 1) for ask in sent]
        livez = Callers(target.port, LIVEZ, length, pause=0.002).heard()
        statuses = [sender.heard().statuses for sender in senders]
        rows[name] = {"livez_max_ms": livez.at(100), "livez_p99_ms": livez.at(99), "answers": statuses}
        table.add_row(name, f"{livez.at(100):.0f}", str(statuses)[:60])
    report.out.print(table)
    return rows


def uploads(target: Server, seconds: float) -> dict[str, float]:
    """The worker's memory while slow clients send bodies that stop a byte short, and after they are gone.

    They come twice: memory that the first ones leave in pieces shows when the second ones come.
    """
    first, second = slow_uploads(target, seconds), slow_uploads(target, seconds)
    found = {"before": first["before"], "most": max(first["most"], second["most"]), "after": second["after"]}
    report.out.print(
        f"{UPLOADS} slow uploads of 16 MiB, twice: {found['before']:.0f} MiB before, at most {found['most']:.0f}, "
        f"{found['after']:.0f} after they are gone",
        highlight=False,
    )
    return found


def slow_uploads(target: Server, seconds: float) -> dict[str, float]:
    before = target.worker.memory_info().rss
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % BODY
    clients = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(UPLOADS)]

    def send(client: socket.socket) -> None:
        with suppress(OSError):  # refused
            client.sendall(head + b" " * (BODY - 1))

    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    most, end = before, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, target.worker.memory_info().rss)
        time.sleep(0.05)
    for client in clients:
        client.close()
    for thread in threads:
        thread.join()
    time.sleep(3)
    found = {"before": before, "most": most, "after": target.worker.memory_info().rss}
    return {name: size / 2**20 for name, size in found.items()}


def first(asks: dict[str, Ask], few: int | None) -> dict[str, Ask]:
    return dict(islice(asks.items(), few))


def main() -> None:
    parser = report.options(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement (%(default)s)")
    parser.add_argument("--worst-seconds", type=float, default=WORST_SECONDS, help="of all bodies (%(default)s)")
    given = parser.parse_args()
    seconds, together = (0.5, 0.5) if given.quick else (given.seconds, given.worst_seconds)
    few, size = (2, 2**20) if given.quick else (None, BODY - 2**20)
    about = report.facts(load(REFERENCE / "mnist-cnn"))
    report.show(about)
    os.sched_setaffinity(0, {cores.LOAD})  # this process and the callers that it starts are the load
    with tempfile.TemporaryDirectory() as home:  # an empty store gets the reference models
        command = [sys.executable, "-m", "training", "serve", "allinone", "--port", "{port}"]
        settings = {"BENTOML_HOME": home, "DUET_DRAIN_SECONDS": "0", "DUET_THREADS": "1"}
        with server.running("duet", command, **settings) as target:
            results = {
                "uploads_mib": uploads(target, 2 * seconds),
                "beside": beside(target, seconds, first(dear(), few)),
                "stalls": stalls(target, seconds, together, first(worst(size), few)),
            }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "neighbours.json"
    path.write_text(json.dumps(about | results, indent=2) + "\n")
    report.out.print(f"written: {path}")


if __name__ == "__main__":
    main()
