"""Proxies as a cluster has them: which replicas they use changes while they run, and a request is sent once.

Both keep connections to the replicas open for a minute, longer than the pauses of the clients, and neither tries a
request again. So each fault of a replica is a failed request.
"""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PATIENCE = 30  # seconds until a proxy must listen

HEAD = """
global
    maxconn 2000
    nbthread 1
    stats socket {folder}/admin level admin
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
"""
HAPROXY = """
frontend in
    bind 127.0.0.1:{port}
    default_backend duet
backend duet
    balance roundrobin
    http-reuse safe
{servers}
"""
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4000; }}
http {{
    access_log off;
    client_max_body_size 16m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout 60s;
    keepalive_requests 1000000;
{upstreams}
    split_clients $request_id $first {{
{shares}
    }}
{next}
    server {{
        listen 127.0.0.1:{port};
        set $slot $first;
{skips}
        location / {{
            proxy_pass http://$slot;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


class Proxy(Protocol):
    """A proxy that runs; slots are the names that it was started with."""

    port: int

    def use(self, slot: str) -> None:
        """Send requests to this slot, too."""

    def leave(self, slot: str) -> None:
        """Send no further request to this slot; those under way go on."""


SPLIT = """
frontend in
    bind 127.0.0.1:{port}
    http-request set-var(txn.canary) str(canary),map_str_int({folder}/weights)
    http-request set-var(txn.below) rand(100),sub(txn.canary)
    use_backend canary if {{ var(txn.below) -m int lt 0 }}
    default_backend stable
backend stable
    http-reuse safe
{stable}
backend canary
    http-reuse safe
{canary}
"""


@dataclass
class HAProxy:
    port: int
    folder: Path
    backend: str = "duet"

    def use(self, slot: str) -> None:
        self.order(f"set server {self.backend}/{slot} state ready")

    def leave(self, slot: str) -> None:
        self.order(f"set server {self.backend}/{slot} state maint")

    def order(self, command: str) -> None:
        """A command of the runtime API, as an ingress controller sends it."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{self.folder}/admin")
            admin.sendall(command.encode() + b"\n")
            answer = admin.recv(4096).decode().strip()
        if answer:
            sys.exit(f"haproxy: {command!r} was answered with {answer!r}")

    def weigh(self, percent: int) -> None:
        """Send this share of the requests, drawn one by one, to the backend `canary`, as a Gateway does."""
        self.order(f"set map {self.folder}/weights canary {percent}")


@dataclass
class Nginx:
    """A slot is used while its file exists: nginx looks for each request. A reload would close idle connections."""

    port: int
    folder: Path

    def use(self, slot: str) -> None:
        (self.folder / "used" / slot).touch()

    def leave(self, slot: str) -> None:
        (self.folder / "used" / slot).unlink(missing_ok=True)


PROGRAMS = ("haproxy", "nginx")


def program(name: str) -> str | None:
    """The path of a proxy's program; None if it is not installed."""
    return shutil.which(name, path="/usr/sbin:" + os.environ["PATH"])


@contextlib.contextmanager
def running(name: str, port: int, targets: Mapping[str, int], folder: Path) -> Iterator[Proxy]:
    """A proxy on `port` that knows the slots of `targets`, each with the port of a replica, and uses none of them."""
    path = program(name)
    if path is None:
        sys.exit(f"{name} is not installed (Debian: apt-get install {name})")
    folder.mkdir()
    folder.parent.chmod(0o755)  # nginx's worker is another user
    config = folder / "config"
    proxy: HAProxy | Nginx
    if name == "haproxy":
        config.write_text(haproxy_config(port, targets, folder))
        proxy, options = HAProxy(port, folder), ["-db", "-f"]
    else:
        (folder / "used").mkdir()
        config.write_text(nginx_config(port, targets, folder))
        proxy, options = Nginx(port, folder), ["-c"]
    with started([path, *options, str(config)], port, folder / "log"):
        yield proxy


@contextlib.contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A program that listens on `port`, until the end of the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{command[0]} does not listen on port {port}: {log.read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def split(
    port: int, stable: Mapping[str, int], canary: Mapping[str, int], folder: Path
) -> Iterator[tuple[HAProxy, HAProxy]]:
    """A haproxy that stands in for an HTTPRoute with two backends; the canary has the weight 0."""
    path = program("haproxy")
    if path is None:
        sys.exit("haproxy is not installed (Debian: apt-get install haproxy)")
    folder.mkdir()
    (folder / "weights").write_text("canary 0\n")
    servers = {"stable": _servers(stable), "canary": _servers(canary)}
    (folder / "config").write_text((HEAD + SPLIT).format(port=port, folder=folder, **servers))
    with started([path, "-db", "-f", str(folder / "config")], port, folder / "log"):
        yield HAProxy(port, folder, "stable"), HAProxy(port, folder, "canary")


def haproxy_config(port: int, targets: Mapping[str, int], folder: Path) -> str:
    return (HEAD + HAPROXY).format(port=port, servers=_servers(targets), folder=folder)


def _servers(targets: Mapping[str, int]) -> str:
    return "\n".join(f"    server {slot} 127.0.0.1:{target} disabled" for slot, target in targets.items())


def nginx_config(port: int, targets: Mapping[str, int], folder: Path) -> str:
    """One upstream a slot; a request whose slot is not used goes to the next one that is."""
    slots = list(targets)
    following = dict(zip(slots, [*slots[1:], slots[0]], strict=True))
    steps = ["first", *(f"after_{step}" for step in range(1, len(slots)))]
    return NGINX.format(
        port=port,
        folder=folder,
        upstreams="\n".join(
            f"    upstream {slot} {{ server 127.0.0.1:{target} max_fails=0; keepalive 256; keepalive_timeout 60s; "
            "keepalive_requests 1000000; }"
            for slot, target in targets.items()
        ),
        shares="\n".join(
            f"        {'*' if slot == slots[-1] else f'{100 / len(slots):.2f}%'} {slot};" for slot in slots
        ),
        next="\n".join(
            f"    map ${before} ${after} {{ {' '.join(f'{slot} {to};' for slot, to in following.items())} }}"
            for before, after in itertools.pairwise(steps)
        ),
        skips="\n".join(f"        if (!-f {folder}/used/$slot) {{ set $slot ${step}; }}" for step in steps[1:]),
    )
