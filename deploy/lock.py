"""`make lock`: pin every version, with the hashes of its files, in deploy/requirements/.

serve.txt is what a serving image installs, loadtest.txt that of Locust, train.txt what `make demo` needs, dev.txt
everything; build.txt and uv.txt are what the installation itself needs. PyTorch is apart, because its builds differ by
machine: torch.txt holds the package alone, cuda.txt what its CUDA build needs on Linux. torch-cpu.txt is written by
hand.

Pins that still fit pyproject.toml stay. To upgrade a package, delete its lines from dev.txt first; to upgrade all,
empty the file.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "requirements"
HEAD = "# Written by `make lock`; do not edit.\n"
CUDA = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton==)")  # needed by PyTorch's CUDA build alone


def pin(output: Path, *selected: str, constraints: Path | None = None) -> dict[str, str]:
    """Resolve for every platform and Python from 3.11 on; package name -> its lines, with all hashes."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--output-file", str(output), *selected]
    command += ["--constraints", str(constraints)] if constraints else []
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    blocks = re.findall(r"^[a-z0-9].*(?:\n .*)*\n", output.read_text(), re.MULTILINE)
    names = [block.split("==")[0] for block in blocks]  # twice where newer Pythons get another version
    return {name: "".join(block for block, of in zip(blocks, names, strict=True) if of == name) for name in names}


def write(name: str, pins: dict[str, str]) -> None:
    (FOLDER / name).write_text(HEAD + "".join(pins.values()))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        known = Path(scratch, "all.txt")  # the pins of before: uv keeps those that still fit
        known.write_text("".join((FOLDER / name).read_text() for name in ("dev.txt", "torch.txt", "cuda.txt")))
        everything = pin(known, "pyproject.toml", "--extra", "dev")
        apart = {name for name, block in everything.items() if name == "torch" or CUDA.match(block)}
        write("torch.txt", {"torch": everything["torch"]})
        write("cuda.txt", {name: everything[name] for name in everything if name in apart - {"torch"}})
        write("dev.txt", {name: block for name, block in everything.items() if name not in apart})
        parts = {"serve": ["pyproject.toml"], "train": ["pyproject.toml", "--extra", "train"]}
        parts |= {"loadtest": ["pyproject.toml", "--extra", "loadtest"]}
        parts |= {group: ["--group", group] for group in ("build", "uv")}
        for part, selected in parts.items():
            pins = pin(Path(scratch, f"{part}.txt"), *selected, constraints=known)
            write(f"{part}.txt", {name: block for name, block in pins.items() if name not in apart})


if __name__ == "__main__":
    main()
