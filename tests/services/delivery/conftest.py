"""A registry that the tests of this folder share, and nobody's credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registries import start_registry


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
