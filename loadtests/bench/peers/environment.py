"""Virtual environments of other servers, below .duet/peers: each has its own, so that none decides Duet's versions."""

import json
import subprocess
import sys

from loadtests.bench import cores, report

ENVIRONMENTS = cores.ROOT / ".duet" / "peers"


def environment(name: str, packages: tuple[str, ...]) -> str | None:
    """The Python of a server's environment, made if needed; None where that fails."""
    folder = ENVIRONMENTS / name.lower().replace(" ", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(packages)
    if done.exists() and done.read_text() == wanted:
        return str(python)
    report.out.print(f"installing {', '.join(packages)} into {folder.relative_to(cores.ROOT)} ...")
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages, "onnxruntime"],
    )
    for step in steps:
        run = subprocess.run(step, check=False, capture_output=True, text=True)
        if run.returncode:
            report.out.print(f"[yellow]{name} cannot be installed:[/] {run.stderr.strip()[-500:]}", highlight=False)
            return None
    done.write_text(wanted)
    return str(python)


def versions(python: str) -> dict[str, str]:
    """Of everything in an environment."""
    command = [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return {row["name"]: row["version"] for row in json.loads(run.stdout)}
