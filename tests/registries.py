"""A real registry on a free port, `duet models`, and pairs of keys for signatures."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

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
from tests.conftest import free_port
from tests.programs import answering


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
    command = [program, "serve", directory / "registry.yaml"]
    with answering(command, f"http://{address}/", directory / "registry.log"):
        yield address


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


def key_pair(folder: Path, name: str, curve: ec.EllipticCurve | None = None, password: str = "") -> tuple[Path, Path]:
    """Files with a new private key and its public one."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.private.pem", folder / f"{name}.public.pem"
    cipher = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def pushed(*arguments: str | Path) -> tuple[str, int, int]:
    """Push; gives the reference by digest, the bytes that were sent and those that were there."""
    result = duet_models("push", *arguments)
    assert result.exit_code == 0, result.output
    _, counts, reference = result.stdout.splitlines()
    found = re.fullmatch(r"sent ([\d,]+) bytes; the registry had ([\d,]+)", counts)
    assert found
    return reference, *(int(number.replace(",", "")) for number in found.groups())  # type: ignore[return-value]


def content(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
