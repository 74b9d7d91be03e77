"""Duet beside Triton: V2 with the same graph, in interleaved rounds; only these two servers are alive.

Triton is NVIDIA's C++ server, here with its Python backend and one ONNX Runtime session. The wheel of nvidia-pytriton
has its program; it is installed below .duet/peers. Where that fails, or Triton does not start, the run says so.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from loadtests.bench import floors, network, report, request, rounds, server, wrk
from loadtests.bench.floors import Rounds
from loadtests.bench.peers.environment import environment, versions
from loadtests.bench.request import NO_STORE, Request
from loadtests.bench.rounds import CONNECTIONS, Case
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

PACKAGES = ("nvidia-pytriton==0.7.0",)
ROUNDS, SECONDS = 8, 2
DUET, TRITON = "Duet", "Triton"
ONE_BINARY, ONE_JSON = "1 image, binary", "1 image, JSON"
MANY_BINARY, MANY_JSON = "64 images, binary", "64 images, JSON"

FLOORS = (
    floors.throughput(DUET, TRITON, ONE_BINARY, 1.05),
    floors.throughput(DUET, TRITON, MANY_BINARY, 0.95),
    floors.throughput(DUET, TRITON, ONE_JSON, 1.2),
    floors.throughput(DUET, TRITON, MANY_JSON, 1.2),
)

CONFIGURATION = """\
name: "{name}"
backend: "python"
max_batch_size: 64
input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ {shape} ] }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ }}
parameters {{ key: "graph" value: {{ string_value: "{graph}" }} }}
"""


def repository(folder: Path, served: Bundle) -> Path:
    """A model repository of Triton with the graph of a bundle."""
    manifest, name = served.manifest, served.name
    code = folder / "models" / name / "1"
    code.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("triton_model.py"), code / "model.py")
    shape, graph = ", ".join(map(str, manifest.image.shape)), served.graph_path("classify").absolute()
    text = CONFIGURATION.format(name=name, shape=shape, classes=len(manifest.class_names), graph=graph)
    (code.parent / "config.pbtxt").write_text(text)
    return folder / "models"


def backends(folder: Path, home: Path) -> Path:
    """Triton's backends with the program that runs models in this version of Python: the wheel has one for each."""
    made = folder / "backends"
    shutil.copytree(home / "backends", made)
    stub = home / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    if not stub.exists():
        sys.exit(f"its wheel has no program for Python {sysconfig.get_python_version()}")
    program = made / "python" / stub.name
    shutil.copyfile(stub, program)
    program.chmod(0o755)
    return made


@contextmanager
def triton(python: str, served: Bundle) -> Iterator[Server]:
    """Triton with one model, running."""
    programs = Path(python).parent
    packages = programs.parent / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    home = packages / "pytriton" / "tritonserver"
    if not (home / "bin" / "tritonserver").exists():
        sys.exit(f"{PACKAGES[0]} has no program for this machine")
    libraries = (packages / "nvidia_pytriton.libs", home / "external_libs", sysconfig.get_config_var("LIBDIR"))
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as folder:
        models, backend = repository(Path(folder), served), backends(Path(folder), home)
        command = [str(home / "bin" / "tritonserver"), f"--model-repository={models}", f"--backend-directory={backend}"]
        command += ["--http-address", "127.0.0.1", "--http-port", "{port}"]
        command += ["--allow-grpc=false", "--allow-metrics=false", "--allow-gpu-metrics=false"]
        found = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PYTHONPATH": str(packages),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        with server.running(TRITON, command, ready="/v2/health/ready", **found) as running:
            yield running


def requests(name: str, **headers: str) -> dict[str, Request]:
    """What both servers are asked, by row."""
    one, many = network.digits(1), network.digits(64)
    return {
        ONE_BINARY: request.v2_binary(name, one, **headers),
        ONE_JSON: request.v2_json(name, one, **headers),
        MANY_BINARY: request.v2_binary(name, many, **headers),
        MANY_JSON: request.v2_json(name, many, **headers),
    }


def measure(duet: Server, other: Server, served: Bundle, count: int, seconds: int) -> Rounds:
    """The rounds of each row."""
    expected = network.answer(served, network.digits(1))
    asked, plain = requests(served.name, **NO_STORE), requests(served.name)
    found = {}
    for name in asked:
        report.out.print(f"{name}: {count} rounds ...", highlight=False)
        cases = [Case(DUET, duet, asked[name]), Case(TRITON, other, plain[name])]
        for case in cases:
            case.server.check(case.request, expected)
            wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=1)
        found[name] = rounds.play({case.name: partial(rounds.served, case, seconds) for case in cases}, count)
    return found


def table(found: Rounds) -> Table:
    shown = Table("V2", "server", "images/s", "CPU µs a request", "p50 ms", "p99 ms")
    shown.title = f"one server core, {CONNECTIONS} connections, wrk; median and 95 % interval over the rounds"
    for row, done in found.items():
        for name in done[0]:
            forms = {"images_per_second": ",.0f", "cpu_us": ",.0f", "p50_ms": ".2f", "p99_ms": ".2f"}
            each = [(rounds.across(done, name, what), form) for what, form in forms.items()]
            shown.add_row(row, name, *(value.show(form) for value, form in each if value))
        shown.add_section()
    return shown


def summary(found: Rounds) -> dict[str, object]:
    """By row and server the median and interval of each figure."""
    return {
        row: {
            name: {what: asdict(value) for what in asdict(done[0][name]) if (value := rounds.across(done, name, what))}
            for name in done[0]
        }
        for row, done in found.items()
    }


def figure(ratios: list[dict[str, object]]) -> Figure:
    picture = Figure(figsize=(9, 3), layout="constrained")
    axes = picture.subplots()
    bars = axes.barh([str(row["group"]) for row in ratios], [float(str(row["median"])) for row in ratios])
    axes.bar_label(bars, fmt="{:.2f}", padding=3)
    axes.axvline(1, color="black", linestyle=":")
    axes.set_xlabel("images per second, Duet / Triton, one core")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    return picture


def main() -> int:
    parser = report.options(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="length of each measurement")
    options = parser.parse_args()
    count, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    wrk_version = wrk.require()
    home, served = network.ready(options.home)
    python = environment(TRITON, PACKAGES)
    if python is None:
        return 0
    about = report.facts(served)
    about["versions"]["wrk"] = wrk_version
    about |= {"connections": CONNECTIONS, "rounds": count, "seconds": seconds}
    report.show(about)
    with server.duet(home, f"{served.name}:{served.version}") as duet:
        try:
            with triton(python, served) as other:
                found = measure(duet, other, served, count, seconds)
        except SystemExit as error:
            report.out.print(f"[yellow]Triton is not measured:[/] {error}", highlight=False)
            return 0
    ratios = floors.judge(found, FLOORS)
    report.out.print(table(found), floors.table(ratios, judged=not options.quick))
    results = {"rows": summary(found), "ratios": ratios, "environment": versions(python)}
    report.save(options.out, "triton", about, results, figure(ratios))
    return int(not options.quick and not all(row["met"] for row in ratios))


if __name__ == "__main__":
    sys.exit(main())
