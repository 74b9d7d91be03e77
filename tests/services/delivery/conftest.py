"""A real registry (Debian's docker-registry) on a free port, and keys for signatures."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner, Result

from services.commands.models import app
from tests.conftest import PATIENCE, free_port

Keys = Callable[..., tuple[Path, Path]]


@contextlib.contextmanager
def start_registry(directory: Path, **configuration: object) -> Iterator[str]:
    """A registry that keeps its blobs in a folder; gives its address, host:port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    address = f"127.0.0.1:{free_port()}"
    content = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": address},
        "log": {"level": "error"},
        **configuration,
    }
    (directory / "registry.yaml").write_text(yaml.safe_dump(content))
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", directory / "registry.yaml"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert process.poll() is None, (directory / "registry.log").read_text()
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://{address}/v2/")
                break
            time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


@pytest.fixture(scope="session")
def registry_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Shared: each test takes a repository of its own."""
    with start_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def repository(registry_address: str, request: pytest.FixtureRequest) -> str:
    """`oci://` and the repository of this test."""
    return f"oci://{registry_address}/test/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the person who runs the tests are theirs."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DUET_TRUSTED_KEYS", "DUET_BUNDLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("COLUMNS", "400")


def duet_models(*arguments: str | Path, answer: str | None = None) -> Result:
    """Run it; an exception other than its exit fails the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(result: Result) -> str:
    """The one line of a command that was refused."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    start, _, rest = line.partition("error: ")
    assert not start
    return rest


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Files with a new pair of keys: `keys("name")` gives the private and the public one."""

    def make(name: str, curve: ec.EllipticCurve | None = None, password: str = "") -> tuple[Path, Path]:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        private, public = tmp_path / f"{name}.private.pem", tmp_path / f"{name}.public.pem"
        cipher = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return private, public

    return make
