"""Redis with the container's arguments, TLS and a password: what services, `duet cache` and the exporter may do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry
from typer.testing import CliRunner

from deploy.manifests.objects import Object, of_kind, pod, variables
from services.caching.keys import namespace
from services.caching.redis import RedisTier
from services.commands import cache
from tests.conftest import PATIENCE, free_port
from tests.manifests.sites import objects

pytestmark = pytest.mark.server
PASSWORD = "a1b2c3"
EXPORTER = "prometheus-redis-exporter"  # Debian's name for it
KEY = f"{namespace('0' * 64)}{0:040x}"


@dataclass(frozen=True)
class Cache:
    port: int
    folder: Path  # in place of /tls
    deployment: Object

    @property
    def url(self) -> str:
        """What the pods of the services have, with the place of this Redis."""
        service = of_kind(objects("overlays/production"), "Deployment")["duet-classification"]
        url = variables(objects("overlays/production"), pod(service)["containers"][0])["DUET_REDIS_URL"]
        assert url is not None
        url = url.replace("$(REDIS_PASSWORD)", PASSWORD).replace("/redis/ca.crt", str(self.folder / "ca.crt"))
        return url.replace("@duet-redis:6379", f"@localhost:{self.port}")

    def client(self, username: str | None = None, password: str | None = None, *, tries: int = 0) -> Redis:
        trusted = str(self.folder / "ca.crt")
        patience = Retry(ConstantBackoff(0.1), tries)
        return Redis(
            "localhost", self.port, username=username, password=password, ssl=True, ssl_ca_certs=trusted, retry=patience
        )


def certificates(folder: Path) -> None:
    """What cert-manager writes: an authority, and a certificate of it for this Redis."""
    (folder / "names").write_text("subjectAltName=DNS:duet-redis,DNS:localhost\n")
    key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"]
    sign = ["openssl", "x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
    steps = (
        [*key, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"],
        [*key, "-subj", "/CN=duet-redis", "-keyout", "tls.key", "-out", "tls.csr"],
        [*sign, "-extfile", "names", "-in", "tls.csr", "-out", "tls.crt"],
    )
    for step in steps:
        subprocess.run(step, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    for program, package in {"redis-server": "redis-server", "openssl": "openssl"}.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    certificates(folder)
    deployment = of_kind(objects("overlays/production"), "Deployment")["duet-redis"]
    container = pod(deployment)["containers"][0]
    arguments = [
        argument.replace("/tls/", f"{folder}/").replace("$(REDIS_PASSWORD)", PASSWORD).replace("6379", str(port))
        for argument in container["args"]
    ]
    with subprocess.Popen([*container["command"], *arguments], cwd=folder, stdout=subprocess.DEVNULL) as process:
        server = Cache(port, folder, deployment)
        with server.client(tries=300) as client:
            assert client.ping()
        yield server
        process.terminate()


async def test_services_may_do_what_they_do_and_nothing_else(redis: Cache) -> None:
    tier = RedisTier(redis.url, timeout_seconds=5, ttl_seconds=60)
    await tier.start()
    assert await tier.lease([KEY], 5) == ({KEY}, {})
    tier.keep({KEY: b"an answer"}, leased=[KEY])
    tier.drop([KEY])
    await tier.close()
    with redis.client("duet", PASSWORD) as client:
        assert client.dbsize() == 0
        for refused in (["FLUSHALL"], ["KEYS", "*"], ["SET", "other", "1"], ["CONFIG", "GET", "*"], ["EVAL", "1", "0"]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*refused)


def test_duet_cache_may_do_what_it_does(redis: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_REDIS_URL", redis.url)
    with redis.client("duet", PASSWORD) as client:
        client.set(KEY, b"an answer")
    for arguments in (["stats"], ["flush", "--all"]):
        result = CliRunner().invoke(cache.app, arguments)
        assert result.exit_code == 0, result.stderr
    assert "removed 1 keys" in result.stdout


def test_nobody_reads_or_writes_answers_without_the_password(redis: Cache) -> None:
    with redis.client() as client:
        assert client.ping()
        for refused in (["GET", KEY], ["SET", KEY, "1"], ["INFO"], ["ACL", "LIST"]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*refused)
    with pytest.raises(AuthenticationError), redis.client("duet", "another") as client:
        client.ping()


def test_the_exporter_reads_figures_and_no_answers(redis: Cache) -> None:
    if shutil.which(EXPORTER) is None:
        pytest.skip(f"{EXPORTER} is not installed (Debian: apt-get install {EXPORTER})")
    port = free_port()
    told = variables([], pod(redis.deployment)["containers"][1])
    environment = {name: value or PASSWORD for name, value in told.items()} | {"PATH": os.environ["PATH"]}
    environment["REDIS_ADDR"] = environment["REDIS_ADDR"].replace("6379", str(redis.port))
    authority = environment["REDIS_EXPORTER_TLS_CA_CERT_FILE"].replace("/tls/", f"{redis.folder}/")
    environment["REDIS_EXPORTER_TLS_CA_CERT_FILE"] = authority
    command = [EXPORTER, "-web.listen-address", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        text, end = "", time.monotonic() + PATIENCE
        while not text and time.monotonic() < end:
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE).text
            except httpx.TransportError:
                time.sleep(0.1)
        process.terminate()
    assert re.search(r"^redis_up 1$", text, re.MULTILINE), text[-500:]
    assert re.search(r"^redis_memory_max_bytes 2\.68435456e\+08$", text, re.MULTILINE)
    with redis.client("exporter", PASSWORD) as client, pytest.raises(NoPermissionError):
        client.get(KEY)
