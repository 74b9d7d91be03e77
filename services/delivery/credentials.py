"""Credentials of registries, where `podman login` and `docker login` leave them."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELPER_SECONDS = 30


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or an identity token, which is exchanged for tokens of a registry."""

    user: str = ""
    password: str = ""
    identity: str = ""

    def __bool__(self) -> bool:
        return bool(self.user or self.identity)


def files() -> list[Path]:
    """Where credentials may be, in the order in which podman and docker look; REGISTRY_AUTH_FILE alone if it is set."""
    if chosen := os.environ.get("REGISTRY_AUTH_FILE"):
        return [Path(chosen)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    docker = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    podman = [Path(runtime, "containers", "auth.json")] if runtime else []
    return [*podman, Path(configuration, "containers", "auth.json"), Path(docker, "config.json")]


def find(registry: str, repository: str) -> Credentials:
    """The credentials for a repository, empty if there are none.

    Raises:
        ValueError: a file or a helper cannot be read; the message names it.
    """
    for file in files():
        try:
            content = json.loads(file.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not readable as a file of credentials ({error}); log in again") from None
        if isinstance(content, dict) and (found := _in(content, file, registry, repository)):
            return found
    return Credentials()


def _in(content: dict[str, Any], file: Path, registry: str, repository: str) -> Credentials:
    helper = (content.get("credHelpers") or {}).get(registry) or content.get("credsStore")
    if helper and (found := _ask(str(helper), registry)):
        return found
    entries = content.get("auths") or {}
    for key in _keys(registry, repository):
        entry = entries.get(key) or {}
        try:
            user, _, password = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, TypeError, AttributeError):
            raise ValueError(f"{file}: auths > {key} is no pair of user and password; log in again") from None
        found = Credentials(user, password.rstrip("\0"), str(entry.get("identitytoken") or ""))
        if found:
            return found
    return Credentials()


def _keys(registry: str, repository: str) -> Iterator[str]:
    """The keys that may hold it, the most specific first: podman also keeps credentials of a repository."""
    path = f"{registry}/{repository}"
    while path != registry:
        yield path
        path = path.rpartition("/")[0]
    yield from (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")


def _ask(helper: str, registry: str) -> Credentials:
    """What a program `docker-credential-HELPER` has for a registry."""
    program = f"docker-credential-{helper}"
    try:
        run = subprocess.run(
            [program, "get"], input=registry, capture_output=True, text=True, timeout=HELPER_SECONDS, check=False
        )
        if run.returncode:  # it has none
            return Credentials()
        answer = json.loads(run.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{program}: no credentials from it ({type(error).__name__}); log in again") from None
    return Credentials(identity=secret) if user == "<token>" else Credentials(user, secret)
