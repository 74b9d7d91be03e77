"""Requests through haproxy and nginx: right ones pass, and none becomes two."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import PATIENCE, Serve, free_port
from tests.contract.messages import CASES, connect, statuses

pytestmark = [pytest.mark.server, pytest.mark.slow]

HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    default_backend duet
backend duet
    http-reuse always
    server one 127.0.0.1:{target}
"""
NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream duet {{ server 127.0.0.1:{target}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://duet; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""
PROXIES = {"haproxy": (HAPROXY, ["-db", "-f"]), "nginx": (NGINX, ["-c"])}


@pytest.fixture(scope="module", params=PROXIES)
def proxied(serve: Serve, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a proxy before a server."""
    program = shutil.which(request.param, path="/usr/sbin:" + os.environ["PATH"])
    if program is None:
        pytest.skip(f"{request.param} is not installed (Debian: apt-get install {request.param})")
    template, options = PROXIES[request.param]
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    with serve("classification") as server:
        text = template.format(port=port, target=server.url.rpartition(":")[2], folder=folder)
        (folder / "config").write_text(text)
        process = subprocess.Popen([program, *options, str(folder / "config")], stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                        break
                assert process.poll() is None
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)


# What proxies make right before they pass it on, and what their own limits refuse.
MADE_RIGHT = {
    *("equal lengths twice", "a list of lengths", "both framings", "bare LF", "a folded line", "HTTP/1.2"),
    *("a size before a bare LF", "HTTP/2 in a line"),
}
OWN_LIMITS = {"60 KB of header", "HTTP/1.0", "100-continue", "another expectation", "a wrong escape", "an asterisk"}


@pytest.mark.parametrize("name", CASES)
def test_a_proxy_in_front_passes_right_requests_and_smuggles_none(proxied: int, name: str) -> None:
    sent, expected = CASES[name]
    came = b""
    with connect(proxied) as connection, contextlib.suppress(OSError):
        connection.sendall(sent)
        wanted = len(expected) if expected[-1] < 400 and name not in OWN_LIMITS else 99
        connection.settimeout(PATIENCE if wanted < 99 else 1)  # an answer too many would come within a second
        while len(statuses(came)) < wanted and (part := connection.recv(65536)):
            came += part
    if expected[-1] < 400:
        assert statuses(came) == expected or name in OWN_LIMITS, came[:300]
    else:
        assert len(statuses(came)) <= 1
        assert name in MADE_RIGHT or all(status >= 400 for status in statuses(came)), came[:300]
    assert httpx.get(f"http://127.0.0.1:{proxied}/livez").status_code == 200
