"""Common parts of all results: options, facts about the machine and the model, and files."""

import argparse
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console

from loadtests.bench import cores, rawloop
from services.inference.bundle import Bundle

mpl.use("Agg")
out = Console(width=None if sys.stdout.isatty() else 120)

LIBRARIES = ("duet", "bentoml", "onnxruntime", "numpy", "orjson", "starlette", "uvicorn", "uvloop", "httptools")
QUIET = 0.5  # above this load average, other work probably affects the results


def options(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    cores.require()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a benchmark that is ended ends its servers
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, prog=f"python -m {_module()}"
    )
    parser.add_argument(
        "--home", type=Path, help="BENTOML_HOME of the models; default: .duet/bench, created if missing"
    )
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"), help="folder for JSON and plot")
    parser.add_argument("--quick", action="store_true", help="a short run that only tests the benchmark")
    return parser


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name


def facts(served: Bundle, operation: str = "classify") -> dict[str, Any]:
    """Machine, versions and model, with the cost of the graph alone (microseconds a run)."""
    about, manifest, graph = machine(), served.manifest, served.graph_path(operation)
    costs = {batch: rawloop.measure(served, batch, 0.5, operation).median for batch in (1, 64)}
    return about | {
        "model": {
            "tag": f"{served.name}:{served.version}",
            "digest": served.digest,
            "network": manifest.network,
            "recipe": manifest.recipe,
            "dataset": manifest.dataset.name,
            "image": manifest.image.shape,
            "graph_bytes": graph.stat().st_size,
        },
        "ort_only_us": {f"batch {batch}": 1e6 * seconds for batch, seconds in costs.items()},
    }


def machine() -> dict[str, Any]:
    """The command, the machine and the versions."""
    load = os.getloadavg()[0]
    if load > QUIET:
        out.print(f"[yellow]the load average is {load:.2f}: other work on this machine affects the results")
    return {
        "command": f"python -m {_module()} {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **revision(cores.ROOT),
        "cpu_model": _cpu_model(),
        "cores": {"machine": os.cpu_count(), "server": cores.SERVER, "load": cores.LOAD},
        "load_average_at_start": load,
        "kernel": platform.release(),
        "versions": {"python": platform.python_version()} | {library: _version(library) for library in LIBRARIES},
    }


def revision(tree: Path) -> dict[str, Any]:
    """The commit of a source tree, and whether its code differs from it."""
    code = ("services", "training", "loadtests", ":!loadtests/results")
    changed = bool(_git(tree, "status", "--porcelain", "--", *code))
    return {"git_revision": _git(tree, "rev-parse", "HEAD"), "git_dirty": changed}


def show(about: dict[str, Any]) -> None:
    """The facts in two lines."""
    model, ort = about["model"], about["ort_only_us"]
    costs = ", ".join(f"{name} {cost:.0f} µs" for name, cost in ort.items())
    out.print(f"{about['cpu_model']}, server on core {cores.SERVER}, load on core {cores.LOAD}; {about['date']}")
    out.print(f"{model['network']} {model['tag']} on {model['dataset']}; ONNX Runtime alone: {costs}", highlight=False)


def save(folder: Path, name: str, about: dict[str, Any], results: dict[str, Any], figure: Figure | None = None) -> None:
    """`name`.json, and `name`.png if there is a figure, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(about | results, indent=2) + "\n")
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=120)
    out.print(f"written: {folder / name}.json{' and .png' if figure is not None else ''}")


def _git(tree: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True, cwd=tree)
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"
