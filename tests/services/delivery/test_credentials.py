"""Credentials as podman and docker keep them, and the two ways in which a real registry asks for them."""

from __future__ import annotations

import base64
import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.delivery.credentials import Credentials, find
from services.inference.bundle import Bundle
from tests.conftest import free_port
from tests.registries import duet_models, refusal, start_registry

MakeBundle = Callable[..., Bundle]

# Of the password `secret`, by bcrypt, which the registry wants.
HTPASSWD = "somebody:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
SECRET = {"auth": base64.b64encode(b"somebody:secret").decode()}


def write(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_podmans_file_comes_before_dockers_and_a_named_one_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def auth(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}

    assert find("r:5000", "a/b") == Credentials()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    write(tmp_path / "docker" / "config.json", auths={"https://r:5000/v2/": auth("docker")})
    assert find("r:5000", "a/b") == Credentials("docker", "x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    podman = tmp_path / "run" / "containers" / "auth.json"
    write(podman, auths={"r:5000": auth("podman")})
    assert find("r:5000", "a/b") == Credentials("podman", "x")
    write(podman, auths={"r:5000": auth("podman"), "r:5000/a": auth("a"), "r:5000/a/b": auth("b")})
    assert [find("r:5000", name).user for name in ("a/b", "a/c", "d")] == ["b", "a", "podman"]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(tmp_path / "own", auths={"r:5000": {"identitytoken": "t"}})))
    assert find("r:5000", "a/b") == Credentials(identity="t")
    assert find("other", "a/b") == Credentials()


def test_a_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nread registry\n[ "$registry" = known ] || exit 1\n'
        'echo \'{"Username": "somebody", "Secret": "from the helper"}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    file = write(tmp_path / "auth.json", credHelpers={"known": "test"}, credsStore="test", auths={"unknown": SECRET})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert find("known", "a") == Credentials("somebody", "from the helper")
    assert find("unknown", "a") == Credentials("somebody", "secret")
    write(file, credsStore="missing")
    with pytest.raises(ValueError, match="docker-credential-missing: no credentials from it"):
        find("known", "a")


@pytest.mark.parametrize(
    "text", ["{", '{"auths": {"r": {"auth": "?"}}}', '{"auths": {"r": 3}}', '{"auths": {"r": {"auth": 3}}}']
)
def test_a_file_that_cannot_be_read_is_named_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "auth.json").write_text(text)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with pytest.raises(ValueError, match=r"auth\.json.*log in again"):
        find("r", "a")


@pytest.fixture
def basic(tmp_path: Path) -> Iterator[str]:
    """A registry with one user."""
    (tmp_path / "basic").mkdir()
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    with start_registry(
        tmp_path / "basic", auth={"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    ) as address:
        yield address


@pytest.mark.server
def test_a_password_is_sent_to_a_registry_that_asks_for_it(
    basic: str, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, reference = make_bundle(), f"oci://{basic}/private/tiny"
    said = refusal(duet_models("push", f"{bundle.path}/", reference))
    assert "the registry answers 401 (Unauthorized); " in said
    assert f"log in with `podman login {basic}`" in said
    file = write(tmp_path / "auth.json", auths={basic: {"auth": base64.b64encode(b"somebody:wrong").decode()}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    said = refusal(duet_models("push", f"{bundle.path}/", reference))
    assert "401" in said
    assert "wrong" not in said
    write(file, auths={basic: SECRET})
    pushed = duet_models("push", f"{bundle.path}/", reference)
    assert pushed.exit_code == 0, pushed.output
    assert duet_models("pull", pushed.stdout.splitlines()[-1], "--into", tmp_path / "mount").exit_code == 0


class Tokens(BaseHTTPRequestHandler):
    """A service that gives tokens for a registry to one user, as the registry's own specification has it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    asked: list[tuple[str, dict[str, list[str]]]]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append((self.headers.get("Authorization", ""), query))
        if self.headers.get("Authorization") != f"Basic {SECRET['auth']}":
            self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
            return
        kind, name, actions = query["scope"][0].split(":")
        now = int(time.time())
        claims = {
            "iss": "test",
            "sub": "somebody",
            "aud": query["service"][0],
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        der = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        signed = b".".join(
            url_safe(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256", "x5c": [der]}, claims)
        )
        r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = url_safe(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        self.answer(200, {"token": (signed + b"." + signature).decode()})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def url_safe(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.fixture
def tokens() -> Iterator[tuple[type[Tokens], str]]:
    """The service and its address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = type("Tokens", (Tokens,), {"key": key, "certificate": builder.sign(key, hashes.SHA256()), "asked": []})
    with HTTPServer(("127.0.0.1", free_port()), made) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made, f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


@pytest.mark.server
def test_a_token_is_fetched_for_a_registry_that_asks_for_one(
    tokens: tuple[type[Tokens], str], make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, realm = tokens
    (tmp_path / "root.pem").write_bytes(made.certificate.public_bytes(Encoding.PEM))
    auth = {"realm": realm, "service": "registry", "issuer": "test", "rootcertbundle": str(tmp_path / "root.pem")}
    (tmp_path / "registry").mkdir()
    bundle = make_bundle()
    with start_registry(tmp_path / "registry", auth={"token": auth}) as address:
        reference = f"oci://{address}/private/tiny"
        said = refusal(duet_models("push", f"{bundle.path}/", reference))
        assert "the registry answers 401 (UNAUTHORIZED: who are you?)" in said
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(write(tmp_path / "auth.json", auths={address: SECRET})))
        pushed = duet_models("push", f"{bundle.path}/", reference)
        assert pushed.exit_code == 0, pushed.output
        assert duet_models("pull", pushed.stdout.splitlines()[-1], "--into", tmp_path / "mount").exit_code == 0
    scopes = [query["scope"][0] for _, query in made.asked]
    assert {scope.rpartition(":")[0] for scope in scopes} == {"repository:private/tiny"}
    assert len(scopes) < 8, "a token is used again"
