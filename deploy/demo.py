"""`make demo`: train on the digits, verify, serve, and print a real answer of each kind.

PORT: where to listen (otherwise 3000, or any free port where that is taken). ONCE=1: stop after the answers.
Everything lies in .duet/demo; a second run serves the models of the first.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image

from training.data.digits import load_digits

HOME = Path(".duet/demo")
ENVIRONMENT = os.environ | {
    "BENTOML_HOME": str(HOME.absolute()),
    "BENTOML_DO_NOT_TRACK": "True",
    "DUET_DRAIN_SECONDS": "0",  # nobody balances load here, so Ctrl-C need not wait
}
PATIENCE = 120  # seconds until a server must be ready


def say(line: str) -> None:
    print(line, flush=True)


def duet(*arguments: str) -> None:
    say(f"\n$ duet {shlex.join(arguments)}")
    subprocess.run([sys.executable, "-m", "training", *arguments], env=ENVIRONMENT, check=True)


def train() -> None:
    done = HOME / "trained"  # written last, so an interrupted training is not taken for a finished one
    if done.exists():
        say(f"The models in {HOME} are used again (`rm -r {HOME}` to train anew).")
        return
    duet("train", "--dataset", "digits", "--recipe", "demo", "--out", str(HOME / "runs"))
    done.touch()


def choose_port() -> int:
    wanted = os.environ.get("PORT")
    for port in [int(wanted)] if wanted else [3000, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit(f"PORT={wanted}: something listens there already; choose another, or leave PORT out")


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


def ask(url: str) -> None:
    """One answer of each kind; the digits are from the test split, which no model was trained on."""
    test = load_digits().test
    assert test.labels is not None
    digit = HOME / f"digit-{test.labels[0]}.png"
    Image.fromarray(test.images[0, 0]).save(digit)
    negative = HOME / f"negative-{test.labels[0]}.png"
    Image.fromarray(255 - test.images[0, 0]).save(negative)
    duet("predict", "--url", url, str(digit))
    duet("predict", "--url", url, "--task", "score", str(digit), str(negative))

    request = '{"count": 16, "seed": 7, "format": "grid"}'
    say(f"\n$ curl {url}/generate --json '{request}' -o {HOME}/generated.png")
    answer = httpx.post(f"{url}/generate", content=request, headers={"Content-Type": "application/json"}, timeout=60)
    picture = HOME / "generated.png"
    picture.write_bytes(answer.raise_for_status().content)
    with Image.open(picture) as image:
        say(f"{picture}: {image.width} x {image.height} pixels, 16 digits that nobody wrote")


def main() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    train()
    duet("models", "verify")
    port = choose_port()
    url, log = f"http://127.0.0.1:{port}", HOME / "server.log"
    say(f"\n$ duet serve allinone --port {port}")
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "training", "serve", "allinone", "--port", str(port)]
        server = subprocess.Popen(command, env=ENVIRONMENT, stdout=stream, stderr=stream)
    try:
        wait_until_ready(server, url, log)
        ask(url)
        if os.environ.get("ONCE") != "1":
            say(f"\nServing at {url} (log: {log}); Ctrl-C stops it.")
            server.wait()
            raise SystemExit(f"the server ended by itself; its log, {log}, says why")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        say("\nStopped.")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has said what was wrong
