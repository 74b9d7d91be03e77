"""A real redis-server for benchmarks and tests of faults."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PASSWORD = "right"


def require() -> str:
    """The version of redis-server."""
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is not installed (Debian: apt-get install {program})")
    text = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout
    return text.partition("v=")[2].partition(" ")[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate(folder: Path, name: str) -> Path:
    """A file with a certificate of 127.0.0.1 that is its own authority, and its key; made with openssl."""
    file = folder / f"{name}.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / f"{name}.key", "-out", file]
    subprocess.run([*make, *names, *files], check=True, capture_output=True)
    file.write_text(file.read_text() + (folder / f"{name}.key").read_text())
    return file


class Redis:
    """A real redis-server on ports of its own, one of them with TLS, without persistence.

    Attributes:
        port, tls_port: where it listens.
        authority: a file with the certificate to trust.
    """

    def __init__(self, folder: Path) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.authority, self._stranger = certificate(folder, "right"), certificate(folder, "stranger")
        self._folder = folder
        self.client = redis.Redis(port=self.port, password=PASSWORD, retry=Retry(NoBackoff(), 0))
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": self._folder, "requirepass": PASSWORD}
        options |= {"enable-debug-command": "yes", "maxmemory-policy": "noeviction"}
        options |= {"tls-port": self.tls_port, "tls-cert-file": self.authority, "tls-key-file": self.authority}
        options |= {"tls-ca-cert-file": self.authority, "tls-auth-clients": "no"}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        while self.process.poll() is None:
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            time.sleep(0.005)
        raise RuntimeError(f"redis-server ended with status {self.process.returncode}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        self.kill()

    def set(self, option: str, value: str) -> None:
        self.client.config_set(option, value)

    def hang_up(self) -> None:
        """End all connections but the one that says so."""
        self.client.client_kill_filter(_type="normal", skipme=True)

    def show(self, certificate: Path) -> None:
        """Use another certificate for new connections."""
        self.client.config_set("tls-cert-file", str(certificate), "tls-key-file", str(certificate))

    def show_stranger(self) -> None:
        self.show(self._stranger)
