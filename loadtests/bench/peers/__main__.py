"""Other servers beside Duet and stock BentoML: the same graph, image, cores and wrk; each by its fastest HTTP way in.

Each peer has a virtual environment of its own below .duet/peers, made here; a peer that cannot be installed or does not
start is reported as such, and left out. Their packages come from PyPI: the first run downloads some hundred megabytes.
"""

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import network, report, request, server, wrk
from loadtests.bench.peers.environment import environment, versions
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

HERE = Path(__file__).parent
CONNECTIONS = 16
ROUNDS, SECONDS = 3, 5

Start = Callable[[str, Path], AbstractContextManager[Server]]


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        packages: what pip installs, pinned; the libraries of the graph follow Duet's own versions.
        start: (its Python, the graph) -> the running server.
        ask: the request for one image.
        way: how it is asked, in words.
    """

    name: str
    packages: tuple[str, ...]
    start: Start
    ask: Request
    way: str


@contextlib.contextmanager
def mlserver(python: str, graph: Path) -> Iterator[Server]:
    # parallel_workers 0: inference in the process that answers.
    settings = {"host": "127.0.0.1", "grpc_port": 0, "metrics_endpoint": None, "parallel_workers": 0, "debug": False}
    model = {"name": "digits", "implementation": "mlserver_model.Classifier"}
    program = str(Path(python).with_name("mlserver"))
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder:
        Path(folder, "settings.json").write_text(json.dumps(settings))
        Path(folder, "model-settings.json").write_text(json.dumps(model))
        command = ["env", "MLSERVER_HTTP_PORT={port}", program, "start", folder]
        ready = "/v2/models/digits/ready"
        with server.running("MLServer", command, ready=ready, GRAPH=str(graph), PYTHONPATH=str(HERE)) as running:
            yield running


def litserve(python: str, graph: Path) -> AbstractContextManager[Server]:
    command = [python, str(HERE / "litserve_server.py"), str(graph), "{port}"]
    return server.running("LitServe", command, ready="/health")


def ray_serve(python: str, graph: Path) -> AbstractContextManager[Server]:
    command = [python, str(HERE / "ray_server.py"), str(graph), "{port}"]
    return server.running("Ray Serve", command, ready="/", RAY_USAGE_STATS_ENABLED="0")


def peers() -> list[Peer]:
    one = network.digits(1)
    return [
        Peer("MLServer", ("mlserver==1.7.1",), mlserver, request.v2_json("digits", one), "V2 JSON"),
        Peer("LitServe", ("litserve==0.2.19",), litserve, request.base64_json("/predict", one), "base64 in JSON"),
        Peer("Ray Serve", ("ray[serve]==2.60.0",), ray_serve, request.raw_bytes("/", one), "raw bytes"),
    ]


def measure(
    start: AbstractContextManager[Server], asked: Request, served: Bundle, rounds: int, seconds: int
) -> dict[str, float]:
    """One server at a time: some of them are busy when idle."""
    with start as target:
        target.check(asked, network.answer(served, network.digits(1)))
        wrk.load(target, asked, connections=CONNECTIONS, seconds=1)
        found = [asdict(wrk.load(target, asked, connections=CONNECTIONS, seconds=seconds)) for _ in range(rounds)]
    return {key: statistics.median(row[key] for row in found) for key in found[0]}


def figure(rows: dict[str, dict[str, float]]) -> Figure:
    picture = Figure(figsize=(9, 4), layout="constrained")
    axes = picture.subplots()
    names = sorted(rows, key=lambda name: rows[name]["requests_per_second"])
    colours = ["tab:blue" if name.startswith("Duet") else "tab:grey" for name in names]
    bars = axes.barh(names, [rows[name]["requests_per_second"] for name in names], color=colours)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_xlabel("requests of one image per second, one core")
    axes.margins(x=0.12)
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each measurement")
    options = parser.parse_args()
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    wrk_version = wrk.require()
    home, served = network.ready(options.home)
    environments = [(peer, environment(peer.name, peer.packages)) for peer in peers()]
    ready = [(peer, python) for peer, python in environments if python is not None]
    about = report.facts(served)
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": CONNECTIONS, "rounds": rounds, "seconds": seconds}
    report.show(about)
    graph = served.graph_path("classify").absolute()
    one = network.digits(1)
    tag = f"{served.name}:{served.version}"
    started: list[tuple[str, Callable[[], AbstractContextManager[Server]], Request]] = [
        ("Duet, V2 binary", partial(server.duet, home, tag), request.v2_binary(served.name, one, **NO_STORE)),
        ("Duet, V2 JSON", partial(server.duet, home, tag), request.v2_json(served.name, one, **NO_STORE)),
        ("stock BentoML, JSON", partial(server.stock_bentoml, graph), request.bento_json(one)),
    ]
    for peer, python in ready:
        started.append((f"{peer.name}, {peer.way}", partial(peer.start, python, graph), peer.ask))
    rows: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {peer.name: "cannot be installed" for peer, python in environments if python is None}
    for name, start, asked in started:
        report.out.print(f"measuring {name} ...")
        try:
            rows[name] = measure(start(), asked, served, rounds, seconds)
        except SystemExit as error:
            if name.startswith(("Duet", "stock")):
                raise
            failed[name] = str(error)
    table = Table("server, way in", "requests/s", "p50 ms", "p99 ms", "Duet V2 binary is")
    best = rows["Duet, V2 binary"]["requests_per_second"]
    for name, row in rows.items():
        rate = row["requests_per_second"]
        table.add_row(name, f"{rate:,.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{best / rate:.1f} x")
    report.out.print(table)
    for name, why in failed.items():
        report.out.print(f"[yellow]not measured: {name}:[/] {why}", highlight=False)
    results = {
        "servers": rows,
        "failed": failed,
        "environments": {peer.name: versions(python) for peer, python in ready},
    }
    report.save(options.out, "peers", about, results, figure(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
