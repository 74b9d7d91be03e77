"""`make demo`: train on the digits, verify, serve, and print a real answer of each kind.

PORT: where to listen (otherwise 3000, or any free port where that is taken). ONCE=1: stop after the answers.
Everything lies in .duet/demo; a second run serves the models of the first, and an interrupted one goes on.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image
from rich.console import Console

from deploy.demo.picture import as_text
from deploy.demo.train import TrainingFailed, train_all
from training.data.digits import load_digits

HOME = Path(".duet/demo")
os.environ |= {  # of the trainings and of the server
    "BENTOML_HOME": str(HOME.absolute()),
    "BENTOML_DO_NOT_TRACK": "True",
    "DUET_DEFAULT_MODELS": "digits-cnn,digits-gan,digits-vae,digits-scorer",
    "DUET_DRAIN_SECONDS": "0",  # no load balancer is here, so Ctrl-C need not wait
}
PATIENCE = 120  # seconds until a server must be ready
CONSOLE = Console(highlight=False, soft_wrap=True)


def header(number: int, title: str) -> None:
    CONSOLE.print(f"\n[bold]{number} of 4  {title}[/bold]")


def duet(*arguments: str) -> None:
    CONSOLE.print(f"\n  $ duet {shlex.join(arguments)}", markup=False)
    run = subprocess.run([sys.executable, "-m", "training", *arguments], check=False, stdout=subprocess.PIPE, text=True)
    for line in run.stdout.splitlines():
        CONSOLE.print(f"  {line}", markup=False)
    if run.returncode:
        sys.exit(run.returncode)  # the command has said what was wrong


def train() -> None:
    header(1, "Train a classifier, a VAE, a GAN and an anomaly scorer on 1,797 handwritten digits")
    done = HOME / "trained"  # written last, so an interrupted training is not taken for a finished one
    if done.exists():
        CONSOLE.print(f"  The models in {HOME} are used again (`rm -r {HOME}` to train anew).", markup=False)
        return
    try:
        train_all(HOME, CONSOLE)
    except TrainingFailed as error:
        sys.exit(str(error))
    done.touch()
    CONSOLE.print(f"  Logs and pictures of the trainings: {HOME}/runs", markup=False)


def choose_port() -> int:
    wanted = os.environ.get("PORT")
    if wanted and not (wanted.isdigit() and 0 < int(wanted) < 65536):
        raise SystemExit(f"PORT={wanted}: give a port from 1 to 65535, or leave PORT out")
    for port in [int(wanted)] if wanted else [3000, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit(f"PORT={wanted}: another program listens there already; give another port, or leave PORT out")


def wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the server did not become ready; its log, {log}, ends with:\n{log.read_text()[-2000:]}")


def show(picture: Image.Image, width: int) -> None:
    """Draw it where there is a terminal; elsewhere its colours would be noise."""
    if CONSOLE.is_terminal:
        CONSOLE.print(as_text(picture, width))


def ask(url: str) -> None:
    """One answer of each kind; the digits are from the test split, which no model was trained on."""
    test = load_digits().test
    assert test.labels is not None
    digit = HOME / f"digit-{test.labels[0]}.png"
    Image.fromarray(test.images[0, 0]).save(digit)
    negative = HOME / f"negative-{test.labels[0]}.png"
    Image.fromarray(255 - test.images[0, 0]).save(negative)
    CONSOLE.print("\n  What is in this image? It is from the test split.")
    show(Image.open(digit), 14)
    duet("predict", "--url", url, str(digit))
    CONSOLE.print("\n  How unusual is it, and how unusual is its negative?")
    duet("predict", "--url", url, "--task", "score", str(digit), str(negative))

    request = '{"count": 16, "seed": 7, "format": "grid"}'
    picture = HOME / "generated.png"
    CONSOLE.print(f"\n  Draw 16 new digits.\n\n  $ curl {url}/generate --json '{request}' -o {picture}", markup=False)
    answer = httpx.post(f"{url}/generate", content=request, headers={"Content-Type": "application/json"}, timeout=60)
    picture.write_bytes(answer.raise_for_status().content)
    with Image.open(picture) as image:
        show(image, 56)
        CONSOLE.print(f"  {picture}: {image.width} x {image.height} pixels", markup=False)


def main() -> None:
    port = choose_port()
    HOME.mkdir(parents=True, exist_ok=True)
    train()
    header(2, "Verify: every file of every model against its SHA-256")
    duet("models", "verify")
    url, log = f"http://127.0.0.1:{port}", HOME / "server.log"
    header(3, "Serve the four models over HTTP")
    CONSOLE.print(f"\n  $ duet serve allinone --port {port}", markup=False)
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "training", "serve", "allinone", "--port", str(port)]
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        wait_until_ready(server, url, log)
        header(4, "Ask")
        ask(url)
        if os.environ.get("ONCE") != "1":
            tell_what_next(url, log)
            server.wait()
            raise SystemExit(f"the server ended by itself; its log, {log}, says why")
        CONSOLE.print("\nThe demo is complete. `make demo` serves the same models until Ctrl-C.")
    finally:
        server.terminate()
        server.wait()


def tell_what_next(url: str, log: Path) -> None:
    CONSOLE.print(
        f"\n[bold]Serving at {url} until Ctrl-C.[/bold] The log is {log}. In another terminal, try:\n\n"
        f"  curl {url}/classify -F images=@docs/pictures/digit.png\n"
        f"  curl {url}/score -F images=@docs/pictures/scratched.png\n"
        f"  .venv/bin/duet predict --url {url} docs/pictures/digit.png\n"
        f"  .venv/bin/duet --help\n\n"
        f"In a browser, {url} lists every route. The tutorials are in docs/tutorials."
    )
