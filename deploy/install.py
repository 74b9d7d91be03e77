"""Install Duet into .venv from the locked versions: `python3 deploy/install.py serve`, or train, or dev.

serve is what answering requests needs, train adds training, dev adds the tests, the linters and the documentation. uv
installs, or pip where uv cannot be had. Every file is checked against the hashes in deploy/requirements/. PyTorch's
build is chosen apart: from the index that TORCH_INDEX names, or for this machine's processor or GPU.

Only the standard library is used, for nothing is installed yet.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "requirements"
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
UNFINISHED = VENV / "unfinished"  # there while an installation runs: what was interrupted is made anew
SETS = {"serve": ["serve"], "train": ["train", "serve"], "dev": ["dev", "train", "serve"]}  # each contains the next
GIGABYTES = {"serve": 1, "train": 2, "dev": 2}
PIP = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
HEARTBEAT = 10  # seconds between lines where there is no terminal


class InstallError(Exception):
    """The installation cannot go on; the message says why and what to do."""


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        raise InstallError(f"Give what to install, one of {', '.join(SETS)}: python3 deploy/install.py serve")
    (chosen,) = sys.argv[1:]
    check_machine(chosen)
    start = time.monotonic()
    make_environment()
    UNFINISHED.touch()
    environment = uv_settings(PYTHON)
    installer = choose_installer(environment)
    install = [*installer, "--no-deps", "--require-hashes", "--requirement"]
    step(f"Installing {count(chosen)} packages", [*install, LOCKS / f"{chosen}.txt"], environment)
    if chosen != "serve":
        install_torch(installer, environment)
    project = [*installer, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    step("Installing Duet", project, environment)
    for name in SETS[chosen]:
        (VENV / f"{name}.installed").touch()
    UNFINISHED.unlink()
    print(f"Installed into {VENV.name} in {time.monotonic() - start:.0f} s.", flush=True)


def check_machine(chosen: str) -> None:
    if sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:2]))
        raise InstallError(
            f"Python {version} is too old; Duet needs 3.11 or newer. Name another one: make demo PYTHON=python3.12"
        )
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES[chosen]:
        raise InstallError(
            f"{GIGABYTES[chosen]} GB of disk are needed in {ROOT}, and {free:.1f} GB are free; make room and try again"
        )


def make_environment() -> None:
    """A virtual environment with pip, made anew where an earlier installation was interrupted."""
    if not UNFINISHED.exists() and works([PYTHON, "-m", "pip", "--version"]):
        return
    if not works([sys.executable, "-c", "import ensurepip, venv"]):
        raise InstallError(
            "This Python cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv"
        )
    step("Making a virtual environment", [sys.executable, "-m", "venv", "--clear", str(VENV)])


def uv_settings(python: "Path | str") -> dict:
    """The environment in which uv finds packages where pip would: uv does not read pip's configuration."""
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"], check=False, stdout=subprocess.PIPE, universal_newlines=True
    )
    found = dict(re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
    names = {**names, "cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
    told = {name: found[option] for option, name in names.items() if option in found}
    if "UV_FIND_LINKS" in told:
        told["UV_FIND_LINKS"] = ",".join(told["UV_FIND_LINKS"].split())
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **told, **os.environ}  # as pip does; the hashes decide


def choose_installer(environment: dict) -> list:
    """The command of uv, or of pip where uv cannot be installed."""
    locked = [*PIP, "--no-deps", "--require-hashes", "--requirement"]
    step("Installing setuptools", [*locked, LOCKS / "build.txt"], environment)
    try:
        step("Installing uv", [*locked, LOCKS / "uv.txt"], environment)
    except InstallError:
        print("uv cannot be installed here; pip takes its place, which takes a minute or two longer.", flush=True)
        return PIP
    return [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON]


def install_torch(installer: list, environment: dict) -> None:
    """PyTorch in the build for this machine, and the CUDA libraries where that build needs them."""
    pinned = re.search("^torch==([0-9.]+)", (LOCKS / "torch.txt").read_text(), re.MULTILINE)
    if works([PYTHON, "-c", f"import importlib.metadata as m; m.version('torch').startswith('{pinned[1]}') or 1 / 0"]):
        return
    install = [*installer, "--no-deps"]
    ways = {"Installing PyTorch": [*install, "--require-hashes", "--requirement", LOCKS / "torch.txt"]}
    if environment.get("TORCH_INDEX"):
        ways = {"Installing PyTorch": [*install, "--index-url", environment["TORCH_INDEX"], pinned[0]]}
    elif any(environment.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS")):
        cpu = [*install, "--require-hashes", "--requirement", LOCKS / "torch-cpu.txt"]
        ways = {"Looking for PyTorch's CPU build": cpu, **ways}
    elif sys.platform == "linux" and installer != PIP:
        # From PyTorch's own index: without a GPU, gigabytes smaller than PyPI's.
        ways = {"Installing PyTorch for this machine": [*install, "--torch-backend", "auto", pinned[0]], **ways}
    for title, command in ways.items():
        try:
            step(title, command, environment)
            break
        except InstallError as error:
            failed = error
    else:
        raise failed
    needs = "import importlib.metadata as m; any('nvidia' in n or 'cuda' in n for n in m.requires('torch')) or 1 / 0"
    if works([PYTHON, "-c", needs]):
        cuda = [*install, "--require-hashes", "--requirement", LOCKS / "cuda.txt"]
        step("Installing the CUDA libraries of PyTorch", cuda, environment)


def count(name: str) -> int:
    return len(re.findall("^[a-z0-9].*==", (LOCKS / f"{name}.txt").read_text(), re.MULTILINE))


def works(command: list) -> bool:
    try:
        return not subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    except OSError:
        return False


def step(title: str, command: list, environment: "dict | None" = None) -> None:
    """Run a command, and show how long it has run: in place on a terminal, otherwise a line every ten seconds."""
    start = shown = time.monotonic()
    terminal = sys.stdout.isatty()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=output, stderr=output)
        while process.poll() is None:
            time.sleep(0.05)
            now = time.monotonic()
            if terminal:
                print(f"\r\033[K{title}: {now - start:.0f} s", end="", flush=True)
            elif now - shown >= HEARTBEAT:
                print(f"{title}: {now - start:.0f} s", flush=True)
                shown = now
        if terminal:
            print("\r\033[K", end="", flush=True)
        if process.returncode:
            output.seek(0)
            told = output.read().decode(errors="replace").strip()[-2000:]
            raise InstallError(f"{told}\n{title} failed; it ran: {shlex.join(map(str, command))}")


if __name__ == "__main__":
    try:
        main()
    except InstallError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again; it starts anew where that is needed.", file=sys.stderr)
        sys.exit(130)
